"""The cache: one Parquet file a voucher, each with its own watermark, so that a refresh costs what changed.

A file's *watermark* is the instant, by the server's clock, up to which the file is known to hold every
change. It is the clock when the read began, less ten minutes, since a change that is committed late keeps an
early timestamp. It lives in the file's own metadata, together with the contract's version, a fingerprint of
the access token (another token may see less) and whether the first pull has come to its end.

The folder ``<cache>/<environment>`` is an ordinary Parquet data set for pandas, DuckDB, Polars and Spark.
Values of codes are money: files are readable by their owner only.
"""

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from vouchertools import contract
from vouchertools.bulk.show import Notice, Panel
from vouchertools.cache_files import file_of, locked, read_codes, read_notes, read_stamp
from vouchertools.client import Client
from vouchertools.console import short_path
from vouchertools.errors import CacheError, InputError
from vouchertools.fetch import label
from vouchertools.progress import bar
from vouchertools.refresh import Refresh
from vouchertools.settings import data_folder


class Cache:
    """Codes on disk, one Parquet file a voucher, refreshed for the cost of what changed.

    Parameters
    ----------
    path
        The folder. None: ``cache`` in the data folder.

    Examples
    --------
    ::

        cache = vt.Cache()
        codes = cache.refresh(client, client.vouchers())  # the first time everything, then what changed
        codes = cache.read()                              # without any network
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        self.path = data_folder() / "cache" if path is None else Path(path)

    def __repr__(self) -> str:
        return f"Cache({str(self.path)!r})"

    def _repr_html_(self) -> str:
        files = {name: len(list(self.folder(name).glob("*.parquet"))) for name in self.environments()}
        notices = [] if files else [Notice("plain", "Nothing is cached yet.")]
        return Panel("Cache", {"in": short_path(self.path)}, notices, {"Vouchers cached": files}).to_html()

    def environments(self) -> list[str]:
        """Environments that have cached codes."""
        if not self.path.is_dir():
            return []
        return sorted(
            folder.name for folder in self.path.iterdir() if folder.is_dir() and any(folder.glob("*.parquet"))
        )

    def folder(self, environment: str) -> Path:
        """The data set of one environment."""
        return self.path / re.sub(r"[^A-Za-z0-9.-]", "_", environment)

    # ---- reading
    # ------------------------------------------------------------------------------------------------

    def read(
        self,
        voucher_ids: Any = None,
        *,
        columns: Iterable[str] | None = None,
        environment: str | None = None,
    ) -> pd.DataFrame:
        """Cached codes, without any network.

        Parameters
        ----------
        voucher_ids
            Only these vouchers. None: all that are cached.
        columns
            Only these columns. None: all.
        environment
            Of several cached environments the one meant. None: the only one.

        Returns
        -------
        DataFrame
            As from ``vt.fetch``, sorted by voucher, newest first; ``attrs["read_utc"]`` is the oldest of the
            files read.

        Raises
        ------
        CacheError
            Nothing is cached, a voucher is not, its first pull has not come to its end, or a file cannot be
            read.
        InputError
            Several environments are cached and none was chosen, or a column does not exist.
        """
        names = list(contract.COLUMNS) if columns is None else list(columns)
        if unknown := [name for name in names if name not in contract.COLUMNS]:
            raise InputError(
                f"Codes have no column {', '.join(unknown)}; they have {', '.join(contract.COLUMNS)}."
            )
        chosen = self._choose(environment)
        folder = self.folder(chosen)
        if voucher_ids is None:
            ids = sorted(file.stem for file in folder.glob("*.parquet"))
        else:
            ids = sorted(contract.require_ids(voucher_ids, "voucher_ids"))
        tables, read_utc, notes = [], [], read_notes(folder)
        for voucher_id in ids:
            stamp = read_stamp(folder, voucher_id, chosen, notes)
            if stamp is None or not stamp.complete:
                state = "not cached" if stamp is None else "only partly cached: its first pull was broken off"
                raise CacheError(
                    f"Voucher {voucher_id} is {state} for {chosen}. "
                    f"Call cache.refresh(client, [{voucher_id!r}])."
                )
            tables.append(read_codes(file_of(folder, voucher_id), names))
            read_utc.append(stamp.read_utc)
        table = pa.concat_tables(tables)
        tables.clear()
        frame = contract.to_pandas(table, consume=True)
        return label(frame, environment=chosen, read_utc=min(read_utc))

    def _choose(self, environment: str | None) -> str:
        cached = self.environments()
        if environment is not None:
            if self.folder(environment).name not in cached:
                raise CacheError(
                    f"Nothing is cached for {environment} in {self.path}; "
                    f"cached are: {', '.join(cached) or 'none'}. "
                    "Call cache.refresh(client, voucher_ids) first."
                )
            return environment
        if not cached:
            raise CacheError(
                f"Nothing is cached in {self.path}. Call cache.refresh(client, voucher_ids) first."
            )
        if len(cached) > 1:
            raise InputError(
                f"{self.path} holds {len(cached)} environments: say environment=, one of {', '.join(cached)}."
            )
        return cached[0]

    # ---- refreshing
    # ---------------------------------------------------------------------------------------------

    def refresh(
        self,
        client: Client,
        voucher_ids: Any,
        *,
        full: bool = False,
        workers: int = 8,
        progress: bool = True,
    ) -> pd.DataFrame:
        """Bring the cached codes of some vouchers up to date, and return them.

        Parameters
        ----------
        client
            The connection.
        voucher_ids
            Any number of voucher ids, or the frame from ``Client.vouchers()``. Other vouchers in the cache
            stay as they are.
        full
            Read everything again, also codes without `UpdatedUtc` where the server allows that, and warn of
            what the refreshes before had missed.
        workers, progress
            As in ``vt.fetch``.

        Returns
        -------
        DataFrame
            As from ``read``.

        Raises
        ------
        CacheError
            The folder cannot be written, another token filled it, or another program is refreshing it for too
            long.
        """
        ids = contract.require_ids(voucher_ids, "voucher_ids")
        environment = client.environment
        folder = self.folder(environment)
        with locked(folder), bar("Refreshing voucher codes", "codes", show=progress) as shown:
            Refresh(client, folder, environment, ids, full=full).run(workers, shown)
        return self.read(ids, environment=environment)
