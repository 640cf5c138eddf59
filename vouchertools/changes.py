"""What changed between two pulls of the same vouchers."""

from typing import Any, Final, overload

import narwhals as nw
import pandas as pd

from vouchertools.errors import InputError
from vouchertools.frames import read_frame, unwrap

#: Every kind of change, in the order of the result.
CHANGES: Final = ("added", "deleted", "restored", "missing", "window moved", "value changed")

_COMPARED: Final = ("VoucherId", "Value", "ValidityStartUtc", "ValidityEndUtc", "ActivityState")


@overload
def compare(before: pd.DataFrame, after: pd.DataFrame) -> pd.DataFrame: ...
@overload
def compare(before: Any, after: Any) -> Any: ...
def compare(before: Any, after: Any) -> Any:
    """List what changed from one pull to the next.

    Parameters
    ----------
    before, after
        Two frames of codes of the same library, any that Narwhals takes, each ``Id`` once in each.

    Returns
    -------
    frame
        A row for each code and change, of that library, lazy if it is lazy; sorted by change, voucher and id.
        ``Change`` is one of

        - ``added``: not there before;
        - ``deleted``: deleted now and not before, codes that came and went in between included;
        - ``restored``: deleted before and not now, which the API has no way to do;
        - ``missing``: not there now, as when the later pull covers fewer vouchers;
        - ``window moved``: another start or end;
        - ``value changed``.

        Then ``Id``, ``VoucherId``, ``Value``, ``ValidityStartUtc`` and ``ValidityEndUtc`` as they are now (as
        they were, if missing), and ``ValueBefore``, ``StartBeforeUtc`` and ``EndBeforeUtc`` as they were.

    Raises
    ------
    InputError
        A column is missing, or the two are of different libraries.

    Examples
    --------
    >>> import pandas as pd
    >>> codes = pd.DataFrame({
    ...     "Id": ["1", "2"], "VoucherId": ["v", "v"], "Value": ["A", "B"],
    ...     "ValidityStartUtc": pd.to_datetime([None, None], utc=True),
    ...     "ValidityEndUtc": pd.to_datetime(["2024-05-01T00:00Z", None]),
    ...     "ActivityState": ["Active", "Active"],
    ... })
    >>> later = codes.assign(ActivityState=["Active", "Deleted"], ValidityEndUtc=pd.NaT)
    >>> later["ValidityEndUtc"] = pd.to_datetime(later["ValidityEndUtc"], utc=True)
    >>> compare(codes, later)[["Change", "Id", "ValidityEndUtc", "EndBeforeUtc"]]
             Change Id ValidityEndUtc              EndBeforeUtc
    0       deleted  2            NaT                       NaT
    1  window moved  1            NaT 2024-05-01 00:00:00+00:00
    """
    old = read_frame(before, "Id", *_COMPARED, name="before")
    new = read_frame(after, "Id", *_COMPARED, name="after")
    if old.implementation != new.implementation or type(old) is not type(new):
        raise InputError(
            f"before is of {old.implementation.name.lower()} and after of {new.implementation.name.lower()}. "
            "Give two frames of the same library."
        )
    joined: Any = _suffixed(old, "_old").join(
        _suffixed(new, "_new"), left_on="Id_old", right_on="Id_new", how="full"
    )
    tests = _tests()
    found: Any = nw.concat(
        [
            joined.filter(tests[change]).with_columns(
                nw.lit(number).alias("_number"), nw.lit(change).alias("Change")
            )
            for number, change in enumerate(CHANGES)
        ]
    )
    gone = nw.col("Id_new").is_null()
    current = [
        nw.when(gone).then(nw.col(f"{name}_old")).otherwise(nw.col(f"{name}_new")).alias(name)
        for name in ("Id", *_COMPARED[:-1])
    ]
    previous = [
        nw.col("Value_old").alias("ValueBefore"),
        nw.col("ValidityStartUtc_old").alias("StartBeforeUtc"),
        nw.col("ValidityEndUtc_old").alias("EndBeforeUtc"),
    ]
    return unwrap(
        found.select("_number", "Change", *current, *previous)
        .sort("_number", "VoucherId", "Id")
        .drop("_number")
    )


def _suffixed(frame: Any, suffix: str) -> Any:
    return frame.select(nw.col(name).alias(f"{name}{suffix}") for name in ("Id", *_COMPARED))


def _tests() -> dict[str, nw.Expr]:
    new_only, old_only = nw.col("Id_old").is_null(), nw.col("Id_new").is_null()
    was_deleted = (nw.col("ActivityState_old") == "Deleted").fill_null(False)
    is_deleted = (nw.col("ActivityState_new") == "Deleted").fill_null(False)
    both = ~new_only & ~old_only
    return {
        "added": new_only,
        "deleted": is_deleted & ~was_deleted,
        "restored": both & was_deleted & ~is_deleted,
        "missing": old_only,
        "window moved": both & (_differs("ValidityStartUtc") | _differs("ValidityEndUtc")),
        "value changed": both & _differs("Value"),
    }


def _differs(name: str) -> nw.Expr:
    """Whether a column differs between the pulls; null equals null."""
    old, new = nw.col(f"{name}_old"), nw.col(f"{name}_new")
    return (old != new).fill_null(False) & ~old.is_null() & ~new.is_null() | (old.is_null() != new.is_null())
