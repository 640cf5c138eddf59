"""The named switches: one for each place where the contract is silent, or a limit that tests move."""

from dataclasses import dataclass, fields
from typing import Any, Literal, get_args, get_origin


@dataclass(frozen=True)
class Switches:
    """How this sandbox behaves where the contract leaves it open.

    Attributes
    ----------
    order
        The timestamp that orders pages, newest first; equal ones stand in the order of their arrival.
    interval
        Whether ``EndUtc`` belongs to an interval of ``UpdatedUtc``. Under ``"half-open"`` an interval whose
        ends are equal means that instant.
    updated_required
        Whether ``voucherCodes/getAll`` refuses a body without ``UpdatedUtc``.
    deleting_deleted
        Whether deleting an already deleted code is refused (400) or does nothing (200).
    duplicate_values
        Whether a ``Value`` that is active in the same voucher may be added again, or is refused (403).
    touched_cursor
        What a cursor yields whose code has left the filter since: its place by its present timestamp
        (``"key"``), the first page again, an empty page, or 400.
    state
        Which of the two fields a code carries.
    nulls
        Whether optional fields without a value are written as null or left out.
    unknown_fields
        Whether answers carry fields that no reference knows yet.
    stored_precision
        Whether the server's own timestamps are kept finer than the whole seconds that it shows.
    rate_limit
        Requests per access token and the seconds of the sliding window; None for no limit.
    rate_clock
        Whether the window is measured in real time or on the sandbox's clock, for tests that move it by hand.
    retry_after
        Whether a 429 says how long to wait.
    max_body_bytes
        The largest body; above it 413.
    keep_history
        Whether every state that a code ever had is kept for ``Server.history``.
    """

    order: Literal["UpdatedUtc", "CreatedUtc"] = "UpdatedUtc"
    interval: Literal["half-open", "inclusive"] = "half-open"
    updated_required: bool = True
    deleting_deleted: Literal["refused", "accepted"] = "refused"
    duplicate_values: Literal["accepted", "refused"] = "accepted"
    touched_cursor: Literal["key", "restart", "empty", "refused"] = "key"
    state: Literal["both", "ActivityState", "IsActive"] = "both"
    nulls: Literal["shown", "omitted"] = "shown"
    unknown_fields: bool = False
    stored_precision: Literal["us", "s"] = "us"
    rate_limit: tuple[int, float] | None = (200, 30.0)
    rate_clock: Literal["real", "sandbox"] = "real"
    retry_after: bool = True
    max_body_bytes: int = 4 * 1024 * 1024
    keep_history: bool = False

    @classmethod
    def parse(cls, given: dict[str, Any]) -> "Switches":
        """Make the switches from keyword arguments, refusing unknown names and values.

        Raises
        ------
        ValueError
            A name that is no switch, or a value that the switch does not have.
        """
        known = {field.name: field.type for field in fields(cls)}
        unknown = sorted(set(given) - set(known))
        if unknown:
            raise ValueError(f"The sandbox has no switch {unknown[0]!r}. It has: {', '.join(known)}.")
        for name, value in given.items():
            kind = known[name]
            choices = (True, False) if kind is bool else get_args(kind) if get_origin(kind) is Literal else ()
            if choices and value not in choices:
                raise ValueError(f"Switch {name}={value!r}: choose one of {', '.join(map(repr, choices))}.")
        return cls(**given)
