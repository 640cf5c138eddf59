"""One refresh of the cache: read what changed since each watermark, write the files that it touches."""

import uuid
import warnings
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from vouchertools import contract
from vouchertools.cache_files import (
    Stamp,
    file_of,
    read_codes,
    read_notes,
    read_stamp,
    readable_stamp,
    write_codes,
    write_notes,
)
from vouchertools.client import Client
from vouchertools.errors import BadRequestError, CacheError, IncompleteReadError
from vouchertools.pull import Pull, untouched
from vouchertools.walk import merge, scopes

#: A watermark lies this much before the beginning of the read that it stands for.
MARGIN: Final = timedelta(minutes=10)


class Refresh:
    """One refresh of some vouchers, under the folder's lock."""

    def __init__(self, client: Client, folder: Path, environment: str, ids: list[str], *, full: bool) -> None:
        self._client = client
        self._folder = folder
        self._environment = environment
        self._ids = [voucher_id.lower() for voucher_id in ids]
        self._full = full
        self._read_utc = client.now().to_pydatetime()
        self._stamps: dict[str, Stamp] = {}
        notes = read_notes(folder)
        for voucher_id in self._ids:
            stamp = None if full else read_stamp(folder, voucher_id, environment, notes)
            # Another token may have seen less. A watermark ahead of the server's clock proves nothing: one of
            # them was set back.
            if (
                stamp is not None
                and stamp.fingerprint == client.fingerprint
                and stamp.watermark <= self._read_utc
            ):
                self._stamps[voucher_id] = stamp

    def run(self, workers: int, shown: Any) -> None:
        """Read what changed, or everything, and write the files that it touches."""
        by_start: dict[datetime, list[str]] = {}
        for voucher_id in self._ids:
            stamp = self._stamps.get(voucher_id)
            by_start.setdefault(stamp.watermark if stamp else contract.EARLIEST, []).append(voucher_id)
        starts = {scope: start for start, ids in by_start.items() for scope in scopes(ids)}
        pull = Pull(
            self._client,
            starts,
            workers=workers,
            progress=shown,
            checkpoint=None if self._full else self._checkpoint,
        )
        self._read_utc = pull.began
        table = pull.run()
        if self._full:
            table = self._verify(table)
        self._write(table, pull.began - MARGIN, complete=True)

    def _checkpoint(self, table: pa.Table, frontier: datetime) -> None:
        """Keep the part of a first pull that is complete up to an instant, so that a crash costs seconds."""
        known = table.filter(pc.less_equal(table.column("UpdatedUtc"), _scalar(frontier)))
        self._write(known, min(frontier, self._read_utc - MARGIN), complete=False)

    def _write(self, table: pa.Table, watermark: datetime, *, complete: bool) -> None:
        notes = read_notes(self._folder)
        by_voucher = _by_voucher(table)
        if strangers := by_voucher.keys() - set(self._ids):
            raise CacheError(
                f"The server answered codes of voucher {min(strangers)}, which was not asked "
                "for. Nothing was written."
            )
        for voucher_id in self._ids:
            old = self._stamps.get(voucher_id)
            if not complete and old is not None and (old.complete or old.watermark >= watermark):
                continue
            fresh = by_voucher.get(voucher_id)
            file = file_of(self._folder, voucher_id)
            stamp = Stamp(
                self._environment,
                self._client.fingerprint,
                watermark,
                self._read_utc,
                complete,
                uuid.uuid4().hex,
            )
            if old is not None:
                kept = read_codes(file, contract.COLUMNS) if fresh is not None or not old.complete else None
                if kept is not None and fresh is not None:
                    fresh = _newest_first(merge([kept, fresh], [0, 1]))
                if old.complete and (fresh is None or fresh.equals(kept)):
                    notes[voucher_id] = {**stamp.to_dict(), "version": old.version}
                    continue
                fresh = kept if fresh is None else fresh
            write_codes(file, contract.empty_table() if fresh is None else fresh, stamp)
            self._stamps[voucher_id] = stamp
        write_notes(self._folder, notes)

    def _verify(self, table: pa.Table) -> pa.Table:
        """End a full read with one walk without `UpdatedUtc`; warn of what had been missed."""
        walked = self._walk_without_times()
        complete = table if walked is None else merge([table, walked], [0, 1])
        notes = read_notes(self._folder)
        claims = {
            voucher_id: stamp.watermark
            for voucher_id in self._ids
            if (stamp := readable_stamp(self._folder, voucher_id, notes)) is not None and stamp.complete
        }
        cached = [read_codes(file_of(self._folder, voucher_id), contract.COLUMNS) for voucher_id in claims]
        if walked is None:
            warnings.warn(
                "Codes whose UpdatedUtc is empty could not be verified: "
                "this server refuses to list codes without an UpdatedUtc interval.",
                stacklevel=4,
            )
            nulls = [part.filter(pc.is_null(part.column("UpdatedUtc"))) for part in cached]
            complete = merge([*nulls, complete], range(len(nulls) + 1))
        if cached:
            _compare(pa.concat_tables(cached), complete, claims)
        return complete

    def _walk_without_times(self) -> pa.Table | None:
        """All codes by a walk without `UpdatedUtc`, those that no interval shows too; None if refused."""
        found: list[pa.Table] = []
        for scope in scopes(self._ids):
            cursor: str | None = None
            used: set[str] = set()
            began = self._client.now().to_pydatetime()
            while True:
                try:
                    page = self._client.page(scope.voucher_ids, updated=None, cursor=cursor)
                except BadRequestError:
                    if not found:
                        return None
                    raise
                found.append(page.table)
                cursor = page.cursor
                if cursor is None or len(page) < contract.MAX_ITEMS:
                    break
                if cursor in used:
                    raise IncompleteReadError(
                        f"The cursor {cursor} was answered twice in a walk without UpdatedUtc. Try again."
                    )
                used.add(cursor)
            if used and not untouched(self._client, scope, began, used):
                raise IncompleteReadError(
                    "Codes changed during the walk without UpdatedUtc, so it cannot be proved complete. "
                    "Nothing was written. Try again when fewer changes are made."
                )
        return merge(found, range(len(found)))


def _compare(cached: pa.Table, complete: pa.Table, claims: dict[str, datetime]) -> None:
    """Warn where the cache differs in what it claimed to hold: codes not updated since their watermark."""
    before = {row["Id"]: row for row in cached.to_pylist()}
    missed = 0
    for row in complete.to_pylist():
        known = before.pop(row["Id"], None)
        updated = row["UpdatedUtc"]
        claimed = claims.get(row["VoucherId"].lower())
        if known != row and claimed is not None and (updated is None or updated <= claimed):
            missed += 1
    if missed or before:
        warnings.warn(
            f"The full read found {missed:,} codes that the cache had missed or held "
            f"differently, and {len(before):,} cached codes "
            "that the server no longer shows. The cache now holds what the server shows.",
            stacklevel=5,
        )


def _scalar(instant: datetime) -> pa.Scalar:
    return pa.scalar(instant, contract.SCHEMA.field("UpdatedUtc").type)


def _newest_first(table: pa.Table) -> pa.Table:
    return table.sort_by([("UpdatedUtc", "descending"), ("Id", "ascending")])


def _by_voucher(table: pa.Table) -> dict[str, pa.Table]:
    """The codes of each voucher, newest first."""
    if not table.num_rows:
        return {}
    table = table.sort_by([("VoucherId", "ascending"), ("UpdatedUtc", "descending"), ("Id", "ascending")])
    runs = pc.run_end_encode(table.column("VoucherId").combine_chunks())
    ends = runs.run_ends.to_pylist()
    starts = [0, *ends[:-1]]
    return {
        value.lower(): table.slice(start, end - start)
        for value, start, end in zip(runs.values.to_pylist(), starts, ends, strict=True)
    }
