"""Every code of some vouchers, complete though codes change while one reads. This is the argument that it is.

**What is asked for.** ``UpdatedUtc`` from before Mews existed to one day past the server's clock, cut into
intervals that share their boundaries, each walked by its cursor. Whether an interval includes its end or not,
each instant lies in one.

**What can go wrong.** Pages are no snapshot. Let `x` be a code that existed when the pull began.

1. *Nobody touches x during the pull.* Then x stays in its interval. A page holds the next codes behind its
   cursor in the server's order, whatever that order is; codes that leave or join do not move x across an
   untouched cursor. So the walk of that interval brings x, unless a code that served it as a cursor was
   touched: then the server may start over, refuse, or end the walk early. A refused cursor, a repeated one
   and a page without news are seen at once and the walk is cut and begun again. An early end is not seen; but
   that cursor's code has a new ``UpdatedUtc``, so it turns up in a closing read, and every interval that used
   it is walked again.
2. *Somebody touches x during the pull.* Then x may slip from an interval not yet read into one read already.
   But its new ``UpdatedUtc``
   lies after the beginning of the pull, so a closing read asks for it.

**Closing reads.** When all intervals are done, everything updated since the pull began is read, less
`CLOSING_MARGIN`; then everything updated since that read began; and so on. A read of one page is atomic: it
shows all changes since the previous read began, as they are at one instant. If it also names no cursor used
since, nothing can have been hidden, and the pull is complete. A read of several pages is a walk like any
other, its cursors included. It may be divided by voucher, since a code never changes its voucher. Their
number is bounded; past the bound the pull fails.

**Result.** Each code that existed at the start, once, in a state that it really had during the pull: of
several reads of it the one with the newest ``UpdatedUtc`` is kept, of equal ones the later.

**Assumptions.** A change sets ``UpdatedUtc`` to the server's present, at most `CLOSING_MARGIN` wrong, and is
visible as soon. A code never changes its voucher. A page shorter than asked for is the last one. A code whose
``UpdatedUtc`` is null is in no interval: ``Cache.refresh(full=True)`` looks for those.
"""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from vouchertools import contract
from vouchertools.client import Client
from vouchertools.errors import ApiError, BadRequestError, InputError
from vouchertools.progress import bar
from vouchertools.pull import Pull
from vouchertools.walk import Scope, merge, scopes


def fetch(
    client: Client,
    voucher_ids: Any,
    *,
    since: Any = None,
    until: Any = None,
    enterprise_ids: Iterable[str] | None = None,
    voucher_code_ids: Iterable[str] | None = None,
    workers: int = 8,
    progress: bool = True,
) -> pd.DataFrame:
    """Read every code of some vouchers, active and deleted, completely or not at all.

    Parameters
    ----------
    client
        The connection, from ``vt.connect()``.
    voucher_ids
        Any number of voucher ids, or the frame from ``Client.vouchers()``.
    since, until
        Only codes whose ``UpdatedUtc`` lies between these two instants, both included; aware. None: no bound.
    enterprise_ids
        Only codes of these enterprises. None: of all that the access token can see.
    voucher_code_ids
        Only the codes with these ids; about one request for a thousand.
    workers
        Number of threads that read at the same time.
    progress
        Whether to show a bar that counts the codes.

    Returns
    -------
    DataFrame
        One row a code, newest first: ``Id``, ``VoucherId``, ``Value``, ``ActivityState`` (``str``) and
        ``ValidityStartUtc``, ``ValidityEndUtc``, ``CreatedUtc``, ``UpdatedUtc`` (``datetime64[us, UTC]``).
        ``attrs["environment"]`` says where it comes from, ``attrs["read_utc"]`` the server's clock when the
        read began, as ISO text in UTC; ``to_parquet`` keeps both.

    Raises
    ------
    InputError
        An argument cannot be used; nothing was sent.
    IncompleteReadError
        The result could not be proved complete.
    ApiError
        The API refused or failed, after the repetitions that make sense.
    """
    vouchers = contract.require_ids(voucher_ids, "voucher_ids")
    enterprises = None if enterprise_ids is None else contract.require_ids(enterprise_ids, "enterprise_ids")
    codes = None if voucher_code_ids is None else contract.require_ids(voucher_code_ids, "voucher_code_ids")
    first = None if since is None else contract.to_utc(since, "since")
    last = None if until is None else contract.to_utc(until, "until")
    if first is not None and last is not None and first > last:
        raise InputError(f"since={since} lies after until={until}. Swap the two.")
    parts = scopes(vouchers, enterprises, codes)
    read_utc, table = read(client, parts, since=first, until=last, workers=workers, progress=progress)
    if first is not None:
        table = table.filter(
            pc.greater_equal(
                table.column("UpdatedUtc"), pa.scalar(first, contract.SCHEMA.field("UpdatedUtc").type)
            )
        )
    if last is not None:
        table = table.filter(
            pc.less_equal(
                table.column("UpdatedUtc"), pa.scalar(last, contract.SCHEMA.field("UpdatedUtc").type)
            )
        )
    return label(contract.to_pandas(table, consume=True), environment=client.environment, read_utc=read_utc)


def label(codes: pd.DataFrame, *, environment: str, read_utc: datetime) -> pd.DataFrame:
    """Note on a frame where and when it was read: what plans take as their defaults.

    As text, since pandas writes ``attrs`` into Parquet as JSON, and fails on what JSON does not know.
    """
    codes.attrs["environment"] = environment
    codes.attrs["read_utc"] = contract.format_utc(read_utc)
    return codes


def read(
    client: Client,
    parts: Sequence[Scope],
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    workers: int = 8,
    progress: bool = False,
) -> tuple[datetime, pa.Table]:
    """When the read began, by the server's clock, and every code of some scopes, once."""
    given_ids = parts[0].voucher_code_ids is not None and since is None and until is None
    with bar("Reading voucher codes", "codes", show=progress) as shown:
        if given_ids and not client.requires_updated:
            try:
                return _read_given(client, parts, workers, shown)
            except BadRequestError as error:
                refused = error
        else:
            refused = None
        # Each piece of given ids has to be sought in every interval: from two pieces on, reading all codes
        # costs less.
        wanted = (
            {code_id for scope in parts for code_id in scope.voucher_code_ids or ()}
            if given_ids and len(parts) > 1
            else None
        )
        sought = (
            parts
            if wanted is None
            else list(dict.fromkeys(replace(scope, voucher_code_ids=None) for scope in parts))
        )
        pull = Pull(
            client,
            dict.fromkeys(sought, since or contract.EARLIEST),
            until=until,
            workers=workers,
            progress=shown,
        )
        table = pull.run()
        client.requires_updated = client.requires_updated or refused is not None
        if wanted is not None:
            ids = pc.utf8_lower(table.column("Id"))
            table = table.filter(pc.is_in(ids, value_set=pa.array(sorted(wanted))))
        return pull.began, table


def _read_given(
    client: Client, parts: Sequence[Scope], workers: int, shown: Any
) -> tuple[datetime, pa.Table]:
    """Codes of given ids, without `UpdatedUtc`: at most as many as fit in one page, which is atomic."""

    def one(scope: Scope) -> pa.Table:
        assert scope.voucher_code_ids is not None
        page = client.page(
            scope.voucher_ids,
            updated=None,
            voucher_code_ids=scope.voucher_code_ids,
            enterprise_ids=scope.enterprise_ids,
        )
        shown.update(len(page))
        return page.table

    began = client.now().to_pydatetime().astimezone(UTC)
    executor = ThreadPoolExecutor(
        max_workers=min(workers, len(parts)), thread_name_prefix="vouchertools-read"
    )
    try:
        tables = list(executor.map(one, parts))
    except ApiError:  # others may be reading with this client
        raise
    except BaseException:
        executor.shutdown(wait=False, cancel_futures=True)
        client.stop()
        raise
    finally:
        executor.shutdown(wait=True, cancel_futures=True)
    return began, merge(tables, range(len(tables)))
