"""How fast requests leave: the request limit of an access token, waiting, and repeating what failed.

The limit is "so many requests in any so many seconds", counted by the server as requests *arrive*. When they
arrive is not known here, only that it is before the answer. So a request counts from the moment it may leave
until the period has passed since its answer: however latency wavers, the server never sees more than the
limit. (Limiters that stamp a request when it leaves break the limit as soon as an early request was slower
than a late one.)
"""

import random
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import tenacity

from vouchertools.errors import (
    ApiError,
    InputError,
    NoAnswerError,
    RateLimitedError,
    ServerError,
    ServerTimeoutError,
    UnreachableError,
    UnreadableAnswerError,
)


class Stopped(BaseException):
    """Ends what a thread was doing with a client when another thread calls `stop`; nothing more was sent."""


class Time:
    """The clock and the waiting of a client; tests pass one of their own."""

    def monotonic(self) -> float:
        """Seconds, only ever forward."""
        return time.monotonic()

    def wait(self, condition: threading.Condition, seconds: float | None) -> None:
        """Wait on a condition whose lock is held, until notified or so many seconds have passed."""
        condition.wait(seconds)


class Pace:
    """Lets requests pass at the request limit, for all threads of one client.

    Parameters
    ----------
    limit
        Most requests in any period.
    period_s
        Length of the period in seconds.
    clock
        The clock and the waiting.
    """

    def __init__(self, limit: int, period_s: float, clock: Time) -> None:
        if limit < 1 or period_s <= 0:
            raise InputError(
                f"rate_limit=({limit}, {period_s}) lets nothing pass. The default is (190, 30.0)."
            )
        self._limit = limit
        self._period_s = period_s
        self._clock = clock
        self._changed = threading.Condition()
        self._free_at: deque[float] = deque()
        self._under_way = 0
        self._hold_until = float("-inf")
        self._stops = 0

    @property
    def stops(self) -> int:
        """How often `stop` was called: what began at another count has to end."""
        return self._stops

    @contextmanager
    def request(self, stops: int) -> Iterator[None]:
        """Hold one place in the request limit while a request is under way; waits for it first.

        Parameters
        ----------
        stops
            `Pace.stops` when the call that this request belongs to began.

        Raises
        ------
        Stopped
            `stop` was called since.
        """
        with self._changed:
            self.raise_if_stopped(stops)
            while (wait_s := self._wait_s()) != 0:
                self._clock.wait(self._changed, wait_s)
                self.raise_if_stopped(stops)
            self._under_way += 1
        try:
            yield
        finally:
            with self._changed:
                self._under_way -= 1
                self._free_at.append(self._clock.monotonic() + self._period_s)
                self._changed.notify_all()

    def hold(self, seconds: float) -> None:
        """Let nothing pass for so many seconds: the server said that the token is over its limit."""
        with self._changed:
            self._hold_until = max(self._hold_until, self._clock.monotonic() + seconds)

    def sleep(self, seconds: float, stops: int) -> None:
        """Wait; like `request`, it ends by `Stopped` if `stop` is or was called since."""
        with self._changed:
            self.raise_if_stopped(stops)
            until = self._clock.monotonic() + seconds
            while (left := until - self._clock.monotonic()) > 0:
                self._clock.wait(self._changed, left)
                self.raise_if_stopped(stops)

    def stop(self) -> None:
        """End what has begun in other threads, by `Stopped`, where it next waits or sends."""
        with self._changed:
            self._stops += 1
            self._changed.notify_all()

    def raise_if_stopped(self, stops: int) -> None:
        """Raise `Stopped` if `stop` was called since `stops` was the count."""
        if self._stops != stops:
            raise Stopped

    def _wait_s(self) -> float | None:
        """Seconds until a request may leave; 0 now, None when only an answer can tell."""
        now = self._clock.monotonic()
        while self._free_at and self._free_at[0] <= now:
            self._free_at.popleft()
        if self._hold_until > now:
            return self._hold_until - now
        if self._under_way + len(self._free_at) < self._limit:
            return 0
        return self._free_at[0] - now if self._free_at else None


@dataclass(frozen=True)
class Retry:
    """When and how often a request is repeated."""

    #: Attempts in all, the first one included, where the server itself asks to come back (408, 429, 5xx).
    attempts: int = 8
    #: The same where nothing, or nothing readable, came back: a wrong address should not take a minute to say
    #: so.
    attempts_unanswered: int = 5
    #: Ceiling of the first wait, doubled at every attempt. The wait is between its half and all of it, at
    #: random, so that it grows and yet no two clients come back together.
    base_s: float = 0.5
    #: Highest ceiling of a wait.
    max_s: float = 30.0
    #: Longest `Retry-After` that is waited for; a longer one is the caller's decision.
    max_retry_after_s: float = 300.0

    def retries_read(self, error: BaseException) -> bool:
        """Whether a failed read is repeated: what may pass by itself, since reading changes nothing."""
        kinds = (ServerTimeoutError, RateLimitedError, ServerError, UnreadableAnswerError, NoAnswerError)
        return isinstance(error, kinds) and self._worth_waiting(error)

    def retries_write(self, error: BaseException) -> bool:
        """Whether a failed write is repeated: only where the server cannot have acted."""
        return isinstance(error, (RateLimitedError, UnreachableError)) and self._worth_waiting(error)

    def _stops(self, state: tenacity.RetryCallState) -> bool:
        error = state.outcome.exception() if state.outcome else None
        unanswered = isinstance(error, (NoAnswerError, UnreadableAnswerError))
        return state.attempt_number >= (self.attempts_unanswered if unanswered else self.attempts)

    def _worth_waiting(self, error: ApiError) -> bool:
        return (error.retry_after or 0.0) <= self.max_retry_after_s

    def _backoff_s(self, attempt: int) -> float:
        ceiling = min(self.base_s * 2 ** (attempt - 1), self.max_s)
        return random.uniform(ceiling / 2, ceiling)

    def loop(self, *, write: bool, pace: Pace, stops: int, retry_408: bool = True) -> tenacity.Retrying:
        """The loop that repeats a call: ``loop(function, *args)``."""
        retries = self.retries_write if write else self.retries_read

        def wait_s(state: tenacity.RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome else None
            retry_after = error.retry_after if isinstance(error, ApiError) else None
            wait = self._backoff_s(state.attempt_number) if retry_after is None else retry_after
            if isinstance(error, RateLimitedError):
                pace.hold(wait)
            return wait

        return tenacity.Retrying(
            retry=tenacity.retry_if_exception(
                lambda error: retries(error) and (retry_408 or not isinstance(error, ServerTimeoutError))
            ),
            stop=self._stops,
            wait=wait_s,
            sleep=lambda seconds: pace.sleep(seconds, stops),
            reraise=True,
        )
