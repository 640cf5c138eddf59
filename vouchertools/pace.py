"""How fast requests leave: the request limit of an access token, waiting, and repeating what failed.

The limit is "so many requests in any so many seconds", counted by the server as requests *arrive*. When they
arrive is not known here, only that it is before the answer. So a request counts from the moment it may leave
until the period has passed since its answer: however latency wavers, the server never sees more than the
limit. (Limiters that stamp a request when it leaves break the limit as soon as an early request was slower
than a late one.)
"""

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
    """Raised in a worker thread whose pull was interrupted; never leaves the package."""


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
        self._answered: deque[float] = deque()
        self._under_way = 0
        self._hold_until = float("-inf")
        self._stops = 0

    @contextmanager
    def request(self) -> Iterator[None]:
        """Hold one place in the request limit while a request is under way; waits for it first."""
        with self._changed:
            stops = self._stops
            while (wait_s := self._wait_s()) != 0:
                self._clock.wait(self._changed, wait_s)
                self._raise_if_stopped(stops)
            self._under_way += 1
        try:
            yield
        finally:
            with self._changed:
                self._under_way -= 1
                self._answered.append(self._clock.monotonic())
                self._changed.notify_all()

    def hold(self, seconds: float) -> None:
        """Let nothing pass for so many seconds: the server said that the token is over its limit."""
        with self._changed:
            self._hold_until = max(self._hold_until, self._clock.monotonic() + seconds)

    def sleep(self, seconds: float) -> None:
        """Wait; `stop` ends it."""
        with self._changed:
            stops = self._stops
            until = self._clock.monotonic() + seconds
            while (left := until - self._clock.monotonic()) > 0:
                self._clock.wait(self._changed, left)
                self._raise_if_stopped(stops)

    def stop(self) -> None:
        """End every wait that is under way in another thread, by `Stopped`."""
        with self._changed:
            self._stops += 1
            self._changed.notify_all()

    def _raise_if_stopped(self, stops: int) -> None:
        if self._stops != stops:
            raise Stopped

    def _wait_s(self) -> float | None:
        """Seconds until a request may leave; 0 now, None when only an answer can tell."""
        now = self._clock.monotonic()
        while self._answered and self._answered[0] <= now - self._period_s:
            self._answered.popleft()
        if self._hold_until > now:
            return self._hold_until - now
        if self._under_way + len(self._answered) < self._limit:
            return 0
        return self._answered[0] + self._period_s - now if self._answered else None


@dataclass(frozen=True)
class Retry:
    """When and how often a request is repeated."""

    #: Attempts in all, the first one included, where the server itself asks to come back (408, 429, 5xx).
    attempts: int = 8
    #: The same where nothing, or nothing readable, came back: a wrong address should not take a minute to say
    #: so.
    attempts_unanswered: int = 5
    #: First ceiling of the random wait, doubled at every attempt.
    base_s: float = 0.5
    #: Highest ceiling of the random wait.
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

    def loop(self, *, write: bool, pace: Pace, retry_408: bool = True) -> tenacity.Retrying:
        """The loop that repeats a call: ``loop(function, *args)``."""
        retries = self.retries_write if write else self.retries_read
        backoff = tenacity.wait_random_exponential(multiplier=self.base_s, max=self.max_s)

        def wait_s(state: tenacity.RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome else None
            retry_after = error.retry_after if isinstance(error, ApiError) else None
            wait = float(backoff(state)) if retry_after is None else retry_after
            if isinstance(error, RateLimitedError):
                pace.hold(wait)
            return wait

        return tenacity.Retrying(
            retry=tenacity.retry_if_exception(
                lambda error: retries(error) and (retry_408 or not isinstance(error, ServerTimeoutError))
            ),
            stop=self._stops,
            wait=wait_s,
            sleep=pace.sleep,
            reraise=True,
        )
