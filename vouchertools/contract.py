"""The Mews voucher-code contract on paper: limits, schema, request bodies, answers, intervals.

Nothing here touches the network, the disk or the clock. Numbers and names are those of the Mews Connector API
reference (``voucherCodes/getAll``, ``/add``, ``/delete``); where it is silent, the choice is said beside it.

A *page* is what one ``getAll`` answers: at most `MAX_ITEMS` codes and a cursor. An *interval* is a stretch of
``UpdatedUtc`` that one walk covers, of whole seconds, at most `MAX_INTERVAL` long.
"""

import io
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any, Final, TypeVar
from uuid import UUID

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json

from vouchertools.errors import InputError, UnreadableAnswerError

#: Most items in one page, one list of ids, one add or one delete (reference: `Limitation`, `VoucherCodeIds`).
MAX_ITEMS: Final = 1000
#: Longest `Value` in characters (reference: `voucherCodes/add`).
MAX_VALUE_LENGTH: Final = 128
#: Longest interval of `UpdatedUtc`. The reference says three months without defining them; the shortest three
#: consecutive months have 89 days, and a day is kept in hand.
MAX_INTERVAL: Final = timedelta(days=88)
#: The first instant that a pull asks for: Mews was founded in 2012.
EARLIEST: Final = datetime(2012, 1, 1, tzinfo=UTC)
#: Part of every operation's address.
API_PATH: Final = "/api/connector/v1/"
#: Raised when the layout of cached files changes, so that old ones are read again instead of misread.
CONTRACT_VERSION: Final = "1"

ACTIVE: Final = "Active"
DELETED: Final = "Deleted"

_TIME: Final = pa.timestamp("us", tz="UTC")

#: The one truth for columns and dtypes, in the order of the reference.
SCHEMA: Final = pa.schema(
    [
        pa.field("Id", pa.string(), nullable=False),
        pa.field("VoucherId", pa.string(), nullable=False),
        pa.field("Value", pa.string()),
        pa.field("ValidityStartUtc", _TIME),
        pa.field("ValidityEndUtc", _TIME),
        pa.field("CreatedUtc", _TIME),
        pa.field("UpdatedUtc", _TIME),
        pa.field("ActivityState", pa.string(), nullable=False),
    ]
)
COLUMNS: Final = tuple(SCHEMA.names)
TIME_COLUMNS: Final = tuple(field.name for field in SCHEMA if field.type == _TIME)

_T = TypeVar("_T")
_BLANKS: Final = b"\xef\xbb\xbf \t\r\n"
_UUID: Final = re.compile(r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}")


@dataclass(frozen=True)
class Page:
    """One answer of ``voucherCodes/getAll``.

    Attributes
    ----------
    table
        The codes, newest first, in `SCHEMA`.
    cursor
        Id of the last code, to be sent back for the next page; None on an empty page.
    """

    table: pa.Table
    cursor: str | None

    def __len__(self) -> int:
        return int(self.table.num_rows)


@dataclass(frozen=True, order=True)
class Interval:
    """A stretch of ``UpdatedUtc`` in whole seconds, UTC; neighbours share their boundary."""

    start: datetime
    end: datetime

    @property
    def seconds(self) -> int:
        """Length in seconds."""
        return int((self.end - self.start).total_seconds())

    def body(self) -> dict[str, str]:
        """As the API writes it."""
        return {"StartUtc": format_utc(self.start), "EndUtc": format_utc(self.end)}


def intervals(since: datetime, until: datetime) -> list[Interval]:
    """Intervals of at most `MAX_INTERVAL` that together cover `since` to `until`, oldest first.

    Examples
    --------
    >>> from datetime import UTC, datetime
    >>> half_year = intervals(datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 6, 1, tzinfo=UTC))
    >>> [str(interval.start.date()) for interval in half_year]
    ['2024-01-01', '2024-03-29']
    """
    start, end = floor_second(since), ceil_second(until)
    marks = [start]
    while marks[-1] < end:
        marks.append(min(marks[-1] + MAX_INTERVAL, end))
    return [Interval(a, b) for a, b in pairwise(marks)] or [Interval(start, end)]


def floor_second(instant: datetime) -> datetime:
    """The whole second at or before an instant."""
    return instant.replace(microsecond=0)


def ceil_second(instant: datetime) -> datetime:
    """The whole second at or after an instant."""
    floor = floor_second(instant)
    return floor if floor == instant else floor + timedelta(seconds=1)


def to_utc(instant: Any, name: str) -> datetime:
    """An aware instant (datetime, Timestamp or ISO text with an offset) as a UTC datetime.

    Raises
    ------
    InputError
        When it is no instant, or has no time zone: local time and UTC cannot be told apart.
    """
    try:
        stamp = pd.Timestamp(instant)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(
            f"{name}={instant!r} is no point in time. Write it like '2024-05-01T00:00:00Z'."
        ) from error
    if pd.isna(stamp):
        raise InputError(f"{name} is empty. Write it like '2024-05-01T00:00:00Z'.")
    if stamp.tzinfo is None:
        raise InputError(
            f"{name}={instant!r} has no time zone. Write it like '2024-05-01T00:00:00Z', "
            "or localize it with .tz_localize('Europe/Prague')."
        )
    try:
        return stamp.as_unit("us").tz_convert("UTC").to_pydatetime().replace(tzinfo=UTC)
    except (ValueError, OverflowError) as error:
        raise InputError(f"{name}={instant!r} is not within the years 1 to 9999, UTC.") from error


def format_utc(instant: Any) -> str:
    """``YYYY-MM-DDThh:mm:ssZ``, with a fraction only where there is one.

    Examples
    --------
    >>> import pandas as pd
    >>> format_utc(pd.Timestamp("2023-10-10", tz="Europe/Prague"))
    '2023-10-09T22:00:00Z'
    """
    moment = to_utc(instant, "time")
    return moment.isoformat(timespec="microseconds" if moment.microsecond else "seconds").replace(
        "+00:00", "Z"
    )


def require_ids(ids: Any, name: str) -> list[str]:
    """Check ids and drop repeats, in upper or lower case, keeping their order and spelling.

    Parameters
    ----------
    ids
        Any iterable of ids (text or ``uuid.UUID``), or a frame with an ``Id`` column (such as
        ``Client.vouchers()``).
    name
        What the ids are, for the error.

    Raises
    ------
    InputError
        When there are none, or one is no UUID: it is named with its position.
    """
    if isinstance(ids, pd.DataFrame):
        require_columns(ids, ["Id"], name)
        if name == "voucher_ids" and "VoucherId" in ids.columns:
            raise InputError(
                "voucher_ids is a frame of codes. Pass its vouchers: frame['VoucherId'].unique()."
            )
        ids = ids["Id"]
    if isinstance(ids, str) or not isinstance(ids, Iterable):
        raise InputError(f"{name} must be a list of ids, not {type(ids).__name__}. For one id write [id].")
    unique: dict[str, str] = {}
    for position, value in enumerate(ids):
        text = str(value) if isinstance(value, UUID) else value
        if not _is_id(text):
            raise InputError(
                f"{name}: {str(value)[:60]!r} at position {position} is no UUID. "
                "Take the ids from Mews, or from client.vouchers()."
            )
        unique.setdefault(text.lower(), text)
    if not unique:
        raise InputError(
            f"{name} is empty, which never means all. Pass at least one id, for example client.vouchers()."
        )
    return list(unique.values())


def _is_id(value: Any) -> bool:
    return isinstance(value, str) and _UUID.fullmatch(value) is not None


def require_columns(frame: Any, columns: Iterable[str], name: str) -> None:
    """Raise `InputError` naming the columns that a frame lacks, or that it is no pandas frame."""
    if not isinstance(frame, pd.DataFrame):
        raise InputError(f"{name} must be a pandas DataFrame, not {type(frame).__name__}.")
    missing = [column for column in columns if column not in frame.columns]
    if missing:
        raise InputError(
            f"{name} lacks the column{'s' * (len(missing) > 1)} {', '.join(missing)}; "
            f"it has {', '.join(map(str, frame.columns)) or 'none'}."
        )


def chunks(items: Sequence[_T], size: int = MAX_ITEMS) -> Iterator[Sequence[_T]]:
    """Consecutive pieces of at most `size` items."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def get_all_body(
    voucher_ids: Sequence[str],
    *,
    updated: Interval | None,
    voucher_code_ids: Sequence[str] | None,
    enterprise_ids: Sequence[str] | None,
    count: int,
    cursor: str | None,
) -> dict[str, Any]:
    """The body of one ``voucherCodes/getAll`` without tokens."""
    limitation: dict[str, Any] = {"Count": count}
    if cursor is not None:
        limitation["Cursor"] = cursor
    body: dict[str, Any] = {"Limitation": limitation, "VoucherIds": list(voucher_ids)}
    if updated is not None:
        body["UpdatedUtc"] = updated.body()
    if voucher_code_ids is not None:
        body["VoucherCodeIds"] = list(voucher_code_ids)
    if enterprise_ids is not None:
        body["EnterpriseIds"] = list(enterprise_ids)
    return body


def add_items(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """``VoucherCodeParameters`` from rows with ``VoucherId``, ``Value`` and, where wanted, the window's ends.

    Raises
    ------
    InputError
        A column is missing, or a row has no UUID as `VoucherId`, no text value, a value over 128 characters,
        or a time without a zone; the row is named by its position.
    """
    require_columns(rows, ["VoucherId", "Value"], "rows")
    windows = [column for column in ("ValidityStartUtc", "ValidityEndUtc") if column in rows.columns]
    items: list[dict[str, Any]] = []
    for position, row in enumerate(rows[["VoucherId", "Value", *windows]].to_dict("records")):
        value = row["Value"]
        if not isinstance(value, str) or not value or len(value) > MAX_VALUE_LENGTH:
            raise InputError(
                f"row {position}: Value must be text of 1 to {MAX_VALUE_LENGTH} characters, "
                f"not {f'{len(value)} characters' if isinstance(value, str) else type(value).__name__}."
            )
        if not _is_id(row["VoucherId"]):
            raise InputError(f"row {position}: VoucherId {str(row['VoucherId'])[:60]!r} is no UUID.")
        item: dict[str, Any] = {"VoucherId": row["VoucherId"], "Value": value}
        for column in windows:
            if not pd.isna(row[column]):
                item[column] = format_utc(to_utc(row[column], f"row {position}: {column}"))
        items.append(item)
    return items


# ---- answers ----


def _answer_schema(time: pa.DataType) -> pa.Schema:
    fields = [pa.field(f.name, time if f.type == _TIME else f.type) for f in SCHEMA]
    code = pa.struct([*fields, pa.field("IsActive", pa.bool_())])
    return pa.schema([("VoucherCodes", pa.list_(code)), ("Cursor", pa.string())])


_ANSWER = _answer_schema(_TIME)
_ANSWER_WITH_TEXT_TIMES = _answer_schema(pa.string())


def parse_page(content: bytes) -> Page:
    """Bytes of an answer of ``voucherCodes/getAll`` -> page, straight to Arrow.

    `ActivityState` is derived from `IsActive` where it is missing; fields that nobody knows are ignored.

    Raises
    ------
    UnreadableAnswerError
        Not JSON, another shape, a code without `Id`, `VoucherId` or state, or one whose two states
        contradict.
    """
    table, cursor = _parse_codes(content)
    return Page(table, cursor)


def parse_added(content: bytes) -> pa.Table:
    """Bytes of an answer of ``voucherCodes/add`` -> the created codes, in `SCHEMA`."""
    return _parse_codes(content)[0]


def empty_table() -> pa.Table:
    """No codes, with the columns and dtypes of any number of them."""
    return SCHEMA.empty_table()


def to_pandas(table: pa.Table, *, consume: bool = False) -> pd.DataFrame:
    """Codes as a DataFrame: columns of `SCHEMA`, ``str`` and ``datetime64[us, UTC]``.

    With `consume` the table is given up column by column, which halves the memory; it must not be used again.
    """
    frame: pd.DataFrame = table.to_pandas(split_blocks=consume, self_destruct=consume)
    return frame


def to_arrow(codes: pd.DataFrame) -> pa.Table:
    """A DataFrame of codes -> Arrow in `SCHEMA`; further columns are left out.

    Raises
    ------
    InputError
        A column is missing or holds something else than the schema says.
    """
    require_columns(codes, COLUMNS, "codes")
    plain = codes[list(COLUMNS)].copy(deep=False)
    plain.attrs = {}
    try:
        return pa.Table.from_pandas(plain, schema=SCHEMA, preserve_index=False).replace_schema_metadata()
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, ValueError) as error:
        raise InputError(f"codes do not have the dtypes of voucher codes: {error}") from error


def parse_records(content: bytes, key: str) -> tuple[list[dict[str, Any]], str | None]:
    """Bytes of an answer -> the list under `key` (enterprises, services, vouchers) and the cursor.

    Raises
    ------
    UnreadableAnswerError
        Not JSON, or the list is missing, null or holds something else than records with an ``Id``.
    """
    answer = parse_object(content)
    items, cursor = answer.get(key), answer.get("Cursor")
    if not isinstance(items, list):
        raise UnreadableAnswerError(f"The answer has no list {key}.")
    for item in items:
        if not isinstance(item, dict) or not isinstance(item.get("Id"), str):
            raise UnreadableAnswerError(f"An item of {key} has no Id.")
    if not isinstance(cursor, str | None):
        raise UnreadableAnswerError("The answer has a Cursor that is no text.")
    return items, cursor


def parse_object(content: bytes) -> dict[str, Any]:
    """Bytes of an answer that is any JSON object.

    Raises
    ------
    UnreadableAnswerError
        It is something else.
    """
    try:
        answer = json.loads(content)
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict):
        raise _no_object(content)
    return answer


def _no_object(content: bytes) -> UnreadableAnswerError:
    """The error for an answer that is no JSON object; it quotes nothing, since a server may echo anything."""
    start = content.lstrip(_BLANKS)[:1]
    kind = "an HTML page" if start == b"<" else "something else" if start else "empty"
    return UnreadableAnswerError(f"The answer is no JSON object but {kind} ({len(content)} bytes).")


def _parse_codes(content: bytes) -> tuple[pa.Table, str | None]:
    answer = _read_json(content)
    codes = pa.concat_arrays(answer.column("VoucherCodes").chunks)
    if answer.num_rows != 1 or codes.null_count:
        raise UnreadableAnswerError("The answer has no list VoucherCodes.")
    records = codes.flatten()
    cursor = answer.column("Cursor")[0].as_py()
    return _codes_table(records), cursor


def _read_json(content: bytes) -> pa.Table:
    # pyarrow crashes on the bare document `null`, takes several documents for several rows, and lets
    # invalid UTF-8 pass.
    if not content.lstrip(_BLANKS).startswith(b"{"):
        raise _no_object(content)
    try:
        content.decode()
    except UnicodeDecodeError as error:
        raise UnreadableAnswerError(f"The answer is not valid UTF-8 at byte {error.start}.") from None
    try:
        return _read_json_as(content, _ANSWER)
    except pa.ArrowInvalid as error:
        # .NET writes seven digits of a second, Arrow reads six: read the times as text and cut them.
        if "timestamp" not in str(error):
            raise UnreadableAnswerError(f"The answer could not be read: {error}") from error
    try:
        return _read_json_as(content, _ANSWER_WITH_TEXT_TIMES)
    except pa.ArrowInvalid as error:
        raise UnreadableAnswerError(f"The answer could not be read: {error}") from error


def _read_json_as(content: bytes, schema: pa.Schema) -> pa.Table:
    return pa.json.read_json(
        io.BytesIO(content),
        read_options=pa.json.ReadOptions(use_threads=False, block_size=len(content) + 1),
        parse_options=pa.json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore"),
    )


def _codes_table(records: pa.StructArray) -> pa.Table:
    columns = dict(zip([f.name for f in records.type], records.flatten(), strict=True))
    for name in TIME_COLUMNS:
        if columns[name].type != _TIME:
            columns[name] = _times_from_text(name, columns[name], columns["Id"])
    state, is_active = columns["ActivityState"], columns.pop("IsActive")
    if is_active.null_count < len(is_active):
        derived = pc.if_else(is_active, ACTIVE, DELETED)
        contradiction = pc.fill_null(pc.not_equal(state, derived), False)
        _refuse(contradiction, columns["Id"], "has an ActivityState that contradicts its IsActive")
        state = pc.coalesce(state, derived)
    columns["ActivityState"] = state
    _refuse(pc.is_null(columns["Id"]), columns["VoucherId"], "has no Id", thing="a code of voucher")
    _refuse(pc.is_null(columns["VoucherId"]), columns["Id"], "has no VoucherId")
    _refuse(pc.is_null(state), columns["Id"], "has neither ActivityState nor IsActive")
    known = pc.or_(pc.equal(state, ACTIVE), pc.equal(state, DELETED))
    _refuse(pc.invert(known), columns["Id"], f"has an ActivityState that is neither {ACTIVE} nor {DELETED}")
    return pa.Table.from_arrays([columns[name] for name in COLUMNS], schema=SCHEMA)


def _refuse(wrong: pa.Array, names: pa.Array, what: str, *, thing: str = "code") -> None:
    position = pc.index(wrong, True).as_py()
    if position >= 0:
        raise UnreadableAnswerError(
            f"The answer cannot be trusted: {thing} {names[position].as_py()} {what}."
        )


def _times_from_text(name: str, texts: pa.Array, ids: pa.Array) -> pa.Array:
    # At most six digits of a second. A time without an offset is UTC, as its column's name says and as
    # pyarrow's JSON reader takes it.
    short = pc.replace_substring_regex(texts, r"(\.\d{6})\d+", r"\1")
    short = pc.replace_substring_regex(short, r"^(\d{4}-\d\d-\d\d[T ][\d:.]+)$", r"\1Z")
    try:
        return pc.cast(short, _TIME)
    except pa.ArrowInvalid:
        pass
    wrong = next(position for position, text in enumerate(short) if not _is_time(text))
    raise UnreadableAnswerError(
        f"The answer cannot be trusted: code {ids[wrong].as_py()} has {name} {short[wrong].as_py()!r}, "
        "which is no time."
    )


def _is_time(text: pa.Scalar) -> bool:
    try:
        pc.cast(text, _TIME)
    except pa.ArrowInvalid:
        return False
    return True
