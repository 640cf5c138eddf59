"""Instants: whole microseconds since 1970, UTC. How the sandbox reads, shows and tells the time."""

import re
import time
from calendar import monthrange
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from functools import cache, lru_cache

SECOND = 1_000_000
DAY = 86_400 * SECOND
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
#: What stands in the store for a timestamp that a code does not have: older than every instant.
NEVER = -(1 << 62)

_FORM = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


def to_micros(instant: datetime) -> int:
    """Turn an aware datetime into microseconds since 1970."""
    since = instant - EPOCH
    return (since.days * 86_400 + since.seconds) * SECOND + since.microseconds


def from_micros(micros: int) -> datetime:
    """Turn microseconds since 1970 into a datetime in UTC."""
    return EPOCH + timedelta(microseconds=micros)


def parse_utc(text: object) -> int:
    """Read an ISO 8601 instant that names its offset.

    Raises
    ------
    ValueError
        Not a string, no date and time, no offset, or outside the years 1 to 9999.
    """
    if not isinstance(text, str) or not _FORM.fullmatch(text):
        raise ValueError("not an ISO 8601 date and time in UTC, such as 2017-11-10T12:00:00Z")
    try:
        micros = to_micros(datetime.fromisoformat(text.upper()))
        from_micros(micros)
    except (ValueError, OverflowError) as error:
        raise ValueError("no such date and time") from error
    return micros


def show(micros: int) -> str:
    """Write an instant as JSON in whole seconds, a missing one as null."""
    if micros == NEVER:
        return "null"
    return _day(micros // DAY) + _second(micros % DAY // SECOND)


def add_months(micros: int, months: int) -> int:
    """Move an instant on by calendar months; a day that the month lacks becomes its last."""
    instant = from_micros(micros)
    year, month = divmod(instant.year * 12 + instant.month - 1 + months, 12)
    if year > 9999:
        return to_micros(datetime.max.replace(tzinfo=UTC))
    day = min(instant.day, monthrange(year, month + 1)[1])
    return to_micros(instant.replace(year=year, month=month + 1, day=day))


def ticking(start: datetime) -> Callable[[], datetime]:
    """Make a clock that shows ``start`` now and ticks on.

    Raises
    ------
    ValueError
        ``start`` has no time zone.
    """
    if start.tzinfo is None:
        raise ValueError(f"clock={start!r} has no time zone: give one, such as datetime.UTC.")
    begun = time.monotonic()
    return lambda: start + timedelta(seconds=time.monotonic() - begun)


@lru_cache(maxsize=4096)
def _day(number: int) -> str:
    return f'"{date.fromordinal(EPOCH.toordinal() + number).isoformat()}T'


@cache
def _second(number: int) -> str:
    return f'{number // 3600:02}:{number // 60 % 60:02}:{number % 60:02}Z"'
