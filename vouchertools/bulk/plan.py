"""A plan: what would change, and every reason to stop; a pure value that reaches no network.

A *plan* holds the full record of each code that it is about, which is enough to invert it, the
environment that it was made for, and a *digest* of all that with its reason. The same codes give the same
digest in whatever order they were selected, so that a plan applied twice is recognised. Its *checks* are
in ``judge.py``, how it is made in ``planning.py``.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import IO, Any, Final, Literal

import pandas as pd
import pyarrow as pa
import pyarrow.parquet

from vouchertools.bulk import show
from vouchertools.bulk.judge import CHECK_COLUMNS, count_checks, merge
from vouchertools.bulk.records import micros, nones
from vouchertools.bulk.show import Notice, Panel
from vouchertools.bulk.values import WINDOW
from vouchertools.contract import COLUMNS
from vouchertools.errors import InputError, PlanError
from vouchertools.files import replace_file

#: Columns of a plan's frame that its digest covers.
RECORD: Final[Mapping[str, tuple[str, ...]]] = {
    "delete": COLUMNS,
    "add": ("VoucherId", "Value", *WINDOW),
    "undo": ("VoucherId", "Value", *WINDOW, "FormerId", "DeletedUtc"),
}
_VERSION: Final = 1
_TONES: Final = {"stop": "bad", "allow_valid": "bad", "skip": "careful", "warning": "careful"}
_FOLLOWS: Final = {
    "stop": "The plan is refused.",
    "allow_valid": "Applying it needs allow_valid=True.",
    "skip": "Left alone.",
    "warning": "",
}


@dataclass(frozen=True, eq=False, repr=False)
class Plan:
    """What would change; made by ``plan_delete``, ``plan_add``, ``plan_undo`` or ``Plan.load``.

    Attributes
    ----------
    kind
        ``delete`` or ``add``.
    frame
        One row a code. To delete: the columns of ``fetch`` and ``Status``. To add: ``VoucherId``, ``Value``,
        ``ValidityStartUtc``, ``ValidityEndUtc``, and for an undo ``FormerId`` and ``DeletedUtc``.
    checks
        One row a reason for concern: ``Row`` (position in `frame`; null: the plan as a whole), ``Check``,
        ``Level`` (``stop``, ``allow_valid``, ``skip``, ``warning``), ``Id``, ``VoucherId``, ``Value``,
        ``Message``.
    environment
        Where it may be applied; None (plans to add only): not said.
    reason
        Why; part of the digest.
    as_of
        The instant for which ``Status`` holds; None for a plan to add.
    tz
        The codes' time zone: a name, a mapping from voucher id to name, or None.
    undo_of
        The run that it undoes.
    """

    kind: Literal["delete", "add"]
    _frame: pd.DataFrame
    _checks: pd.DataFrame
    environment: str | None
    reason: str
    as_of: pd.Timestamp | None = None
    tz: Any = None
    undo_of: str | None = None
    names: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _ = self.digest  # of what is reviewed, not of what is applied

    @property
    def frame(self) -> pd.DataFrame:
        """The codes; a copy, so that a plan stays what was reviewed."""
        return self._frame.copy(deep=False)

    @property
    def checks(self) -> pd.DataFrame:
        """Every reason for concern; a copy."""
        return self._checks.copy(deep=False)

    @cached_property
    def digest(self) -> str:
        """SHA-256 over kind, environment, reason, time zones, the run that it undoes and every record."""
        head = [_VERSION, self.kind, self.environment, self.reason, self.tz, self.undo_of]
        columns = [
            micros(self._frame[name]) if name.endswith("Utc") else nones(self._frame[name])
            for name in self._record
        ]
        lines = sorted(json.dumps(row) for row in zip(*columns, strict=True))
        return hashlib.sha256("\n".join([json.dumps(head, sort_keys=True), *lines]).encode()).hexdigest()

    @property
    def _record(self) -> tuple[str, ...]:
        return RECORD["undo" if self.kind == "add" and self.undo_of is not None else self.kind]

    def __len__(self) -> int:
        return len(self._frame)

    def __repr__(self) -> str:
        return self._panel().to_text()

    def _repr_html_(self) -> str:
        return self._panel().to_html()

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the plan to a Parquet file, whole or not at all, for its owner alone; returns its path."""
        checks = pa.Table.from_pandas(self._checks, preserve_index=False).replace_schema_metadata()
        sink = pa.BufferOutputStream()
        options = pa.ipc.IpcWriteOptions(compression="zstd")
        with pa.ipc.new_stream(sink, checks.schema, options=options) as writer:
            writer.write_table(checks)
        head = {
            "version": _VERSION,
            "kind": self.kind,
            "environment": self.environment,
            "reason": self.reason,
            "as_of": None if self.as_of is None else self.as_of.isoformat(),
            "tz": self.tz,
            "undo_of": self.undo_of,
            "names": dict(self.names),
            "digest": self.digest,
        }
        table = pa.Table.from_pandas(self._frame, preserve_index=False).replace_schema_metadata(
            {"vouchertools_plan": json.dumps(head), "vouchertools_checks": sink.getvalue().to_pybytes()}
        )

        def write(file: IO[bytes]) -> None:
            pa.parquet.write_table(table, file, compression="zstd")

        file = Path(path)
        try:
            replace_file(file, write)
        except OSError as error:
            raise InputError(
                f"The plan cannot be written to {file}: {error.strerror or error}. "
                "Choose a folder that you may write to."
            ) from error
        return file

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Plan":
        """Read a plan back, exactly as it was reviewed.

        Raises
        ------
        InputError
            There is no plan in the file.
        PlanError
            The file was altered after it was written.
        """
        file = Path(path)
        try:
            table = pa.parquet.read_table(file)
            metadata = table.schema.metadata or {}
            head = json.loads(metadata[b"vouchertools_plan"])
            checks = pa.ipc.open_stream(metadata[b"vouchertools_checks"]).read_all().to_pandas()
        except FileNotFoundError:
            raise InputError(f"There is no file {file}.") from None
        except OSError as error:
            raise InputError(f"{file} cannot be read: {error.strerror or error}.") from error
        except (pa.ArrowException, KeyError, ValueError) as error:
            raise InputError(f"{file} holds no plan. Plan.save writes one.") from error
        if head["version"] != _VERSION:
            raise PlanError(f"{file} is a plan of version {head['version']}, not {_VERSION}. Make it anew.")
        plan = cls(
            kind=head["kind"],
            _frame=table.replace_schema_metadata().to_pandas(),
            _checks=merge([checks.reindex(columns=list(CHECK_COLUMNS))]),
            environment=head["environment"],
            reason=head["reason"],
            as_of=None if head["as_of"] is None else pd.Timestamp(head["as_of"]).as_unit("us"),
            tz=head["tz"],
            undo_of=head["undo_of"],
            names=head["names"],
        )
        if plan.digest != head["digest"]:
            raise PlanError(
                f"{file} was altered after it was written. Make the plan anew, and review it again."
            )
        return plan

    def _panel(self) -> Panel:
        count = f"{len(self):,} code" + "s" * (len(self) != 1)
        notices = [
            Notice(
                _TONES[level],
                f"{f'{number:,} × {check}: ' * bool(number)}{message} {_FOLLOWS[level]}".rstrip(),
            )
            for level, check, number, message in count_checks(self._checks)
        ]
        names = {
            voucher: f"{self.names.get(voucher, '')} {show.shorten_id(voucher)}".strip()
            for voucher in self._frame["VoucherId"].unique()
        }
        by_voucher = show.count_by(self._frame["VoucherId"].map(names))
        by_status = show.count_by(self._frame["Status"]) if "Status" in self._frame.columns else {}
        columns = ["Id"] * (self.kind == "delete") + ["VoucherId", "Value", *WINDOW]
        columns += ["Status"] * ("Status" in self._frame.columns)
        zone = self.tz if isinstance(self.tz, str) else "one for each voucher" if self.tz else ""
        return Panel(
            f"{'Undo: a' if self.undo_of else 'A'} plan to {self.kind} {count}",
            {
                "in": self.environment or "any sandbox (environment not said)",
                "reason": self.reason,
                "judged at": "" if self.as_of is None else self.as_of.strftime("%Y-%m-%d %H:%M UTC"),
                "time zone": zone,
                "undoes run": self.undo_of or "",
                "digest": self.digest[:12],
            },
            notices or [Notice("good", "Nothing to worry about was found in the selection.")],
            {"Status": by_status, "Voucher": by_voucher},
            show.pick_sample(self._frame[columns]),
        )
