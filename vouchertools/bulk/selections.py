"""Selections that analysts make: small, readable filters over a frame of codes, and why a code does not work.

Each takes the frame and gives back some of its rows, columns and attrs untouched, ready for ``plan_delete``.
"""

from collections.abc import Iterable
from typing import Any, Final

import pandas as pd

from vouchertools.contract import ACTIVE, DELETED, require_columns, to_utc
from vouchertools.errors import InputError
from vouchertools.status import status

_WHY: Final = {
    "deleted": "It is deleted.",
    "inverted": "Its window ends before it begins, so it never works.",
    "expired": "Its window is over.",
    "future": "Its window has not begun.",
    "valid": "",
}


def expired_for(codes: pd.DataFrame, days: float, *, as_of: Any = None, tz: Any = None) -> pd.DataFrame:
    """Codes that were expired already so many days ago; deleted ones are left out.

    Parameters
    ----------
    codes
        Codes, as from ``fetch`` or ``Cache``.
    days
        For how long at least; 0 means expired at all.
    as_of
        The present instant, aware; None: when the codes were read (``attrs["read_utc"]``).
    tz
        As for ``status``.
    """
    if not days >= 0:
        raise InputError(f"days={days!r} is negative. Codes that expire later are found with vt.status.")
    then = pd.Timestamp(to_utc(_as_of(codes, as_of), "as_of")) - pd.Timedelta(days=days)
    return codes[status(codes, as_of=then, tz=tz) == "expired"]


def deleted(codes: pd.DataFrame) -> pd.DataFrame:
    """Codes that are deleted."""
    require_columns(codes, ["ActivityState"], "codes")
    return codes[codes["ActivityState"] == DELETED]


def duplicates_but_oldest(codes: pd.DataFrame) -> pd.DataFrame:
    """Active codes whose voucher has an older active code of exactly the same value: what can go.

    Of several that are equally old, the one with the smallest id counts as the oldest; one without
    ``CreatedUtc`` counts as the youngest.
    """
    require_columns(codes, ["Id", "VoucherId", "Value", "CreatedUtc", "ActivityState"], "codes")
    active = codes[(codes["ActivityState"] == ACTIVE) & codes["Value"].notna()]
    by_age = active.sort_values(["CreatedUtc", "Id"], na_position="last")
    younger = by_age.duplicated(["VoucherId", "Value"])
    return active[younger.reindex(active.index)] if active.index.is_unique else by_age[younger]


def of_voucher(codes: pd.DataFrame, voucher_id: str) -> pd.DataFrame:
    """Codes of one voucher."""
    require_columns(codes, ["VoucherId"], "codes")
    return codes[codes["VoucherId"].str.lower() == str(voucher_id).lower()]


def values_in(codes: pd.DataFrame, values: Iterable[str]) -> pd.DataFrame:
    """Codes whose value is exactly one of these."""
    require_columns(codes, ["Value"], "codes")
    if isinstance(values, str):
        raise InputError("values must be a list of values, not one text. Write [value].")
    return codes[codes["Value"].isin(list(values))]


def find(
    codes: pd.DataFrame,
    value: str,
    *,
    as_of: Any = None,
    tz: Any = None,
    vouchers: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Say why a code does not work: what a guest typed, held against every code.

    Parameters
    ----------
    codes
        Codes, as from ``fetch`` or ``Cache``.
    value
        What was typed.
    as_of, tz
        As for ``expired_for``.
    vouchers
        The frame from ``Client.vouchers()``: then inactive vouchers are seen, and their time zones used.

    Returns
    -------
    DataFrame
        One row for each code that was, or could have been, meant, the likeliest first: ``Match`` (``exact``,
        ``other case``, ``blanks``), ``Works``, ``Why``, ``Status`` and the code's own columns. When there is
        none, one row with the match ``none``.
    """
    if not isinstance(value, str) or not value.strip():
        raise InputError("value is blank. Give what the guest typed.")
    require_columns(codes, ["Id", "VoucherId", "Value"], "codes")
    instant = to_utc(_as_of(codes, as_of), "as_of")
    key = _bare(value)
    meant = codes["Value"].map(lambda other: isinstance(other, str) and _bare(other) == key)
    found = codes[meant.astype(bool)]
    if not len(found):
        unknown = f"No code has the value {value!r}, in whatever case or with whatever blanks."
        return pd.DataFrame({"Match": ["none"], "Works": [False], "Why": [unknown]})
    zones = vouchers if tz is None and vouchers is not None else tz
    found = found.assign(
        Match=[_match(other, value) for other in found["Value"]],
        Status=status(found, as_of=instant, tz=zones).to_numpy(),
    )
    inactive = set() if vouchers is None else set(vouchers.loc[vouchers["IsActive"].eq(False), "Id"])
    why = [
        _why(match, str(other), state, voucher in inactive)
        for match, other, state, voucher in zip(
            found["Match"], found["Value"], found["Status"], found["VoucherId"], strict=True
        )
    ]
    found = found.assign(Why=why, Works=[not reason for reason in why])
    rank = found["Match"].map({"exact": 0, "other case": 1, "blanks": 2})
    order = found.assign(rank=rank, fails=~found["Works"]).sort_values(["rank", "fails", "Id"]).index
    first = ["Match", "Works", "Why", "Status"]
    others = [column for column in found.columns if column not in first]
    return found.loc[order, first + others].reset_index(drop=True)


def _as_of(codes: pd.DataFrame, as_of: Any) -> Any:
    instant = codes.attrs.get("read_utc") if as_of is None else as_of
    if instant is None:
        raise InputError("as_of is missing, and codes does not say when it was read. Give client.now().")
    return instant


def _bare(value: str) -> str:
    return "".join(value.casefold().split())


def _match(other: str, value: str) -> str:
    if other == value:
        return "exact"
    return "other case" if other.casefold() == value.casefold() else "blanks"


def _why(match: str, other: str, state: str, inactive: bool) -> str:
    reasons = {
        "exact": "",
        "other case": f"It is written {other!r}.",
        "blanks": f"It is written {other!r}, with other blanks.",
    }[match]
    voucher = "Its voucher is inactive." if inactive else ""
    return " ".join(reason for reason in (reasons, _WHY[state], voucher) if reason)
