"""One code as a value: how plans, the journal and the server's answers are held against each other.

Times are whole microseconds since 1970, UTC, or None: equal codes compare equal, whatever frame they came
from.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

import numpy as np
import pandas as pd

from vouchertools.contract import COLUMNS, DELETED, SCHEMA, TIME_COLUMNS

#: Answers after which a sending may or may not have taken effect; see ``journal.py``.
AMBIGUOUS: Final = (None, "answered", "unanswered")
#: What a null timestamp is in a column of pandas cast to integers.
_NAT: Final = int(np.iinfo(np.int64).min)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Code(NamedTuple):
    """The full record of one code."""

    id: str
    voucher_id: str
    value: str | None
    start: int | None
    end: int | None
    created: int | None
    updated: int | None
    state: str

    @property
    def key(self) -> tuple[str, str | None]:
        """Voucher and value: what makes two codes the same to a guest. Ids are compared in lower case."""
        return self.voucher_id.lower(), self.value

    @property
    def window(self) -> tuple[int | None, int | None]:
        """Start and end."""
        return self.start, self.end

    @property
    def is_deleted(self) -> bool:
        """Whether it is deleted."""
        return self.state == DELETED

    def same_as(self, other: "Code") -> bool:
        """Whether nothing at all differs."""
        return (self.id.lower(), *self.key, *self[3:]) == (other.id.lower(), *other.key, *other[3:])


@dataclass
class RunFacts:
    """What a run is; instants in microseconds since 1970 on the server's clock.

    Attributes
    ----------
    selected
        When the codes were selected: what somebody touched was updated later.
    seen
        The last sign of life.
    """

    id: str
    kind: str
    environment: str
    rehearsal: bool
    digest: str
    reason: str
    undo_of: str | None
    tz: Any
    allow_valid: bool
    selected: int
    started: int
    seen: int
    ended: int | None = None
    state: str = "running"
    note: str = ""


@dataclass(slots=True)
class Row:
    """One code of a run.

    Attributes
    ----------
    code
        As the plan has it; a row to add has no id yet.
    former_deleted
        For a row that restores a deleted code: when that was deleted.
    held
        Ids that held the voucher and value before the first sending; None before it.
    tried
        Whether a sending of it was ever ambiguous.
    doubtful
        Whether one is at present; not kept in the journal, where the sendings say so.
    new
        The code that the server showed for it last: the one created, or the deleted one.
    proved
        Whether `outcome` was read back after it was reached.
    """

    n: int
    code: Code
    former_deleted: int | None = None
    held: frozenset[str] | None = None
    tried: bool = False
    doubtful: bool = False
    outcome: str | None = None
    message: str = ""
    request_id: str | None = None
    proved: bool = False
    new: Code | None = None


@dataclass
class Sending:
    """One request that writes."""

    id: int
    rows: list[int]
    enterprise_id: str | None
    intended: int
    concluded: int | None = None
    answer: str | None = None
    request_id: str | None = None
    message: str = ""
    settled: bool = False

    @property
    def is_open(self) -> bool:
        """Whether it is not yet known what it did."""
        return self.answer in AMBIGUOUS and not self.settled


@dataclass
class Record:
    """All that the journal knows of a run."""

    facts: RunFacts
    rows: list[Row]
    sendings: list[Sending] = field(default_factory=list)


def to_codes(frame: pd.DataFrame) -> list[Code]:
    """Rows of a frame with the columns of the contract, in order."""
    columns = [micros(frame[name]) if name in TIME_COLUMNS else nones(frame[name]) for name in COLUMNS]
    return [Code(*row) for row in zip(*columns, strict=True)]


def to_frame(codes: Iterable[Code]) -> pd.DataFrame:
    """Codes as a frame with the columns and dtypes of the contract."""
    columns = list(zip(*codes, strict=True)) or [()] * len(COLUMNS)
    data: dict[str, Any] = {
        name: times(column) if name in TIME_COLUMNS else pd.array(list(column), dtype="str")
        for name, column in zip(SCHEMA.names, columns, strict=True)
    }
    return pd.DataFrame(data)


def micros(column: "pd.Series[Any]") -> list[int | None]:
    """A column of aware times as microseconds since 1970."""
    numbers = column.dt.tz_convert("UTC").astype("datetime64[us, UTC]").astype("int64")
    return [None if number == _NAT else number for number in numbers.tolist()]


def times(column: Iterable[int | None]) -> pd.DatetimeIndex:
    """Microseconds since 1970 as aware times."""
    numbers = np.array([_NAT if number is None else number for number in column], dtype="int64")
    return pd.DatetimeIndex(numbers.view("datetime64[us]"), tz="UTC")


def nones(column: "pd.Series[Any]") -> list[str | None]:
    """A column of text with None where there is none."""
    return [value if isinstance(value, str) else None for value in column.tolist()]


def to_micros(instant: datetime) -> int:
    """An aware instant as microseconds since 1970."""
    return (instant - _EPOCH) // timedelta(microseconds=1)


def from_micros(number: int) -> pd.Timestamp:
    """Microseconds since 1970 as an aware instant."""
    return pd.Timestamp(_EPOCH + timedelta(microseconds=number)).as_unit("us")
