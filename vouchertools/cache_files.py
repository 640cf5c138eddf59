"""The cache on disk: one Parquet file a voucher, with its own stamp, and the notes beside them.

Rows and stamp move together, by one ``os.replace``, or not at all. Where nothing changed, only the watermark
moves: it is then noted in ``_watermarks.json``, for exactly that version of a file; without the note the
file's own, older watermark holds, which costs a longer read and nothing else.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Any, Final

import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock, Timeout

from vouchertools import contract
from vouchertools.errors import CacheError
from vouchertools.files import replace_file

#: How long a refresh waits for another one of the same folder, in seconds.
LOCK_TIMEOUT_S: Final = 900.0
_NOTES: Final = "_watermarks.json"
_KEY: Final = b"vouchertools"


@dataclass(frozen=True)
class Stamp:
    """What a cached file says of itself.

    Attributes
    ----------
    watermark
        UTC; up to here the file holds every change.
    complete
        Whether the first pull came to its end; until then codes are missing.
    read_utc
        The server's clock when the read began that the file stands for.
    fingerprint
        Of the access token that saw these codes.
    version
        A new one at every writing.
    """

    environment: str
    fingerprint: str
    watermark: datetime
    read_utc: datetime
    complete: bool
    version: str

    def to_dict(self) -> dict[str, Any]:
        """As it is written into the file's metadata."""
        times = {"watermark": self.watermark.isoformat(), "read_utc": self.read_utc.isoformat()}
        return {**self.__dict__, **times, "contract": contract.CONTRACT_VERSION}

    @classmethod
    def from_json(cls, text: str | bytes) -> "Stamp | None":
        """Read back; None when another version of the contract wrote it."""
        fields = json.loads(text)
        if fields.pop("contract") != contract.CONTRACT_VERSION:
            return None
        for name in ("watermark", "read_utc"):
            fields[name] = datetime.fromisoformat(fields[name])
        return cls(**fields)


def file_of(folder: Path, voucher_id: str) -> Path:
    """Where the codes of a voucher are kept."""
    return folder / f"{voucher_id.lower()}.parquet"


def _replace(path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    try:
        replace_file(path, write)
    except OSError as error:
        raise CacheError(
            f"{path} cannot be written: {error.strerror or error}. The file is as it was before."
        ) from error


def write_codes(file: Path, table: pa.Table, stamp: Stamp) -> None:
    """Replace the codes of a voucher, together with what they claim."""
    marked = table.replace_schema_metadata({_KEY: json.dumps(stamp.to_dict())})
    _replace(file, lambda handle: pq.write_table(marked, handle, compression="zstd"))


@contextmanager
def _opened(file: Path) -> Iterator[pq.ParquetFile]:
    try:
        with pq.ParquetFile(file) as opened:
            yield opened
    except (pa.ArrowException, OSError) as error:
        raise CacheError(
            f"The cached file {file} cannot be read, it may be cut short: {error}. "
            "Delete it, then call cache.refresh(client, voucher_ids); the codes are read again."
        ) from error


def read_codes(file: Path, columns: Iterable[str]) -> pa.Table:
    """Some columns of the codes of a voucher."""
    names = list(columns)
    with _opened(file) as opened:
        table = opened.read(columns=names)
        return table.select(names).cast(pa.schema([contract.SCHEMA.field(name) for name in names]))


def read_stamp(
    folder: Path, voucher_id: str, environment: str, notes: dict[str, Any] | None = None
) -> Stamp | None:
    """What a cached file says of itself, brought up to date from the notes; None where there is none.

    `notes` are those of `read_notes`, for whoever asks for many vouchers; None: they are read.

    Raises
    ------
    CacheError
        The file cannot be read, or was made from another environment.
    """
    file = file_of(folder, voucher_id)
    if not file.exists():
        return None
    with _opened(file) as opened:
        text = (opened.schema_arrow.metadata or {}).get(_KEY)
    stamp = None if text is None else Stamp.from_json(text)
    if stamp is None:
        return None
    if stamp.environment != environment:
        raise CacheError(
            f"The cached file {file} was made from {stamp.environment}, not from {environment}. "
            "Delete it, or move it back to its own folder."
        )
    return _noted(stamp, voucher_id, read_notes(folder) if notes is None else notes)


def _noted(stamp: Stamp, voucher_id: str, notes: dict[str, Any]) -> Stamp | None:
    """A file's stamp, or the note beside it for that very version."""
    note = notes.get(voucher_id.lower())
    return (
        Stamp.from_json(json.dumps(note))
        if note is not None and note.get("version") == stamp.version
        else stamp
    )


def readable_stamp(folder: Path, voucher_id: str, notes: dict[str, Any]) -> Stamp | None:
    """The stamp of a file that is about to be replaced; None where it has none that can be used."""
    try:
        with _opened(file_of(folder, voucher_id)) as opened:
            text = (opened.schema_arrow.metadata or {}).get(_KEY)
    except CacheError:
        return None
    stamp = None if text is None else Stamp.from_json(text)
    return None if stamp is None else _noted(stamp, voucher_id, notes)


def read_notes(folder: Path) -> dict[str, Any]:
    """Watermarks of files that have not changed; without them the files' own, older ones hold."""
    try:
        notes = json.loads((folder / _NOTES).read_bytes())
    except (OSError, ValueError):
        return {}
    return notes if isinstance(notes, dict) else {}


def write_notes(folder: Path, notes: dict[str, Any]) -> None:
    """Note the watermarks of files that have not changed."""
    _replace(folder / _NOTES, lambda file: file.write(json.dumps(notes).encode()))


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder against other programs that refresh it."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = FileLock(folder / ".lock", timeout=LOCK_TIMEOUT_S, mode=0o600)
        lock.acquire()
    except Timeout:
        raise CacheError(
            f"Another program has been refreshing {folder} for more than {LOCK_TIMEOUT_S:.0f} s. "
            "Wait for it, or end it; then try again."
        ) from None
    except OSError as error:
        raise CacheError(
            f"The cache folder {folder} cannot be written: {error.strerror or error}. "
            "Choose another: vt.Cache(path)."
        ) from error
    try:
        yield
    finally:
        lock.release()
