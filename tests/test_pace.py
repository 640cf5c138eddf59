"""The request limit, waiting, stopping and repeating."""

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import HandClock

from vouchertools.errors import (
    ApiError,
    BadRequestError,
    ConflictError,
    ForbiddenError,
    InputError,
    NoAnswerError,
    NotFoundError,
    RateLimitedError,
    ServerError,
    ServerTimeoutError,
    TooLargeError,
    UnauthorizedError,
    UnreachableError,
    UnreadableAnswerError,
)
from vouchertools.pace import Pace, Retry, Stopped, Time

PATIENCE_S = 20.0


class Simulation(Time):
    """Time that passes in waits alone, in which requests under way are answered when they are due."""

    def __init__(self) -> None:
        self.now = 0.0
        self.under_way: list[tuple[float, AbstractContextManager[None]]] = []

    def monotonic(self) -> float:
        return self.now

    def wait(self, condition: threading.Condition, seconds: float | None) -> None:
        until = float("inf") if seconds is None else self.now + seconds
        if self.under_way and self.under_way[0][0] <= until:
            self.now, request = self.under_way.pop(0)
            request.__exit__(None, None, None)
        else:
            assert until < float("inf"), "nothing is under way and nothing may leave: it would wait for ever"
            self.now = until

    def pass_time(self, seconds: float) -> None:
        until = self.now + seconds
        while self.under_way and self.under_way[0][0] <= until:
            self.wait(threading.Condition(), None)
        self.now = until


@settings(deadline=None, max_examples=200)
@given(
    st.integers(1, 6),
    st.floats(0.5, 40),
    st.lists(st.tuples(st.floats(0, 50), st.floats(0, 1), st.floats(0, 3)), min_size=1, max_size=60),
)
def test_the_server_never_sees_more_than_the_limit_however_latency_wavers(
    limit: int, period_s: float, requests: list[tuple[float, float, float]]
) -> None:
    clock = Simulation()
    pace = Pace(limit, period_s, clock)
    arrivals: list[float] = []
    for latency_s, share, pause_s in requests:
        clock.pass_time(pause_s)
        request = pace.request(pace.stops)
        request.__enter__()
        arrivals.append(clock.now + share * latency_s)
        clock.under_way.append((clock.now + latency_s, request))
        clock.under_way.sort(key=lambda item: item[0])
    arrivals.sort()
    for first, over in zip(arrivals, arrivals[limit:], strict=False):
        assert over - first >= period_s - 1e-6


def test_the_limit_is_used_up_before_anything_waits() -> None:
    clock = HandClock()
    pace = Pace(5, 10.0, clock)
    left = []
    for _ in range(17):
        with pace.request(pace.stops):
            left.append(clock.elapsed)
    assert left == [0.0] * 5 + [10.0] * 5 + [20.0] * 5 + [30.0] * 2


def test_a_request_under_way_counts_until_its_answer_is_a_period_old() -> None:
    clock = HandClock()
    pace = Pace(1, 10.0, clock)
    with pace.request(pace.stops):
        clock.forward(7.0)
    with pace.request(pace.stops):
        assert clock.elapsed == 17.0


def test_a_request_that_fails_counts_too() -> None:
    clock = HandClock()
    pace = Pace(1, 10.0, clock)
    with pytest.raises(ZeroDivisionError), pace.request(pace.stops):
        raise ZeroDivisionError
    with pace.request(pace.stops):
        assert clock.elapsed == 10.0


@pytest.mark.parametrize("limit", [(0, 30.0), (-1, 30.0), (190, 0.0), (190, -1.0)])
def test_a_limit_that_lets_nothing_pass_is_refused(limit: tuple[int, float]) -> None:
    with pytest.raises(InputError, match="lets nothing pass"):
        Pace(*limit, Time())


def test_a_hold_holds_everything_and_the_longest_one_counts() -> None:
    clock = HandClock()
    pace = Pace(100, 10.0, clock)
    pace.hold(7.0)
    pace.hold(3.0)
    with pace.request(pace.stops):
        assert clock.elapsed == 7.0


@contextmanager
def thread_that(act: Any) -> Iterator[tuple[threading.Thread, list[BaseException | None]]]:
    """A thread, and how it ended."""
    ends: list[BaseException | None] = []

    def run() -> None:
        try:
            act()
            ends.append(None)
        except BaseException as error:
            ends.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    yield thread, ends
    thread.join(PATIENCE_S)
    assert not thread.is_alive()


class Noticed(Time):
    """Real time that tells when somebody waits."""

    def __init__(self) -> None:
        self.waits = threading.Event()

    def wait(self, condition: threading.Condition, seconds: float | None) -> None:
        self.waits.set()
        super().wait(condition, seconds)


@pytest.mark.parametrize("what", ["sleep", "hold", "limit", "under way"])
def test_stop_ends_every_kind_of_wait_at_once_and_what_begins_later_is_free(what: str) -> None:
    clock = Noticed()
    pace = Pace(1, 0.01 if what == "under way" else 3600.0, clock)
    stops = pace.stops
    busy = pace.request(stops)
    if what in ("limit", "under way"):
        busy.__enter__()
    if what == "limit":
        busy.__exit__(None, None, None)
    if what == "hold":
        pace.hold(3600.0)

    def act() -> None:
        if what == "sleep":
            pace.sleep(3600.0, stops)
        else:
            pace.request(stops).__enter__()

    with thread_that(act) as (_, ends):
        assert clock.waits.wait(PATIENCE_S)
        pace.stop()
    assert isinstance(ends[0], Stopped)
    pace.sleep(0.0, pace.stops)


def test_what_began_before_a_stop_neither_waits_nor_sends_after_it() -> None:
    clock = HandClock()
    pace = Pace(10, 10.0, clock)
    stops = pace.stops
    pace.stop()
    with pytest.raises(Stopped):
        pace.sleep(1.0, stops)
    with pytest.raises(Stopped):
        pace.request(stops).__enter__()
    with pytest.raises(Stopped):
        pace.raise_if_stopped(stops)
    assert clock.waits == []
    with pace.request(pace.stops):
        pass


def test_stopped_is_not_swallowed_by_code_that_catches_exceptions() -> None:
    assert not issubclass(Stopped, Exception)


def test_an_answer_lets_the_next_one_through() -> None:
    clock = Noticed()
    pace = Pace(2, 0.01, clock)
    first, second = pace.request(0), pace.request(0)
    first.__enter__()
    second.__enter__()
    with thread_that(lambda: pace.request(0).__enter__()) as (_, ends):
        assert clock.waits.wait(PATIENCE_S)
        assert ends == []
        first.__exit__(None, None, None)
    assert ends == [None]


# ---- repeating ----

PASSING = [
    ServerTimeoutError,
    RateLimitedError,
    ServerError,
    UnreadableAnswerError,
    NoAnswerError,
    UnreachableError,
]
LASTING = [BadRequestError, UnauthorizedError, ForbiddenError, NotFoundError, ConflictError, TooLargeError]


def attempts(
    kind: type[BaseException],
    *,
    write: bool,
    retry: Retry | None = None,
    clock: HandClock | None = None,
    retry_408: bool = True,
    **facts: Any,
) -> int:
    """How often a call that always fails is made."""
    tried: list[int] = []

    def fail() -> None:
        tried.append(1)
        raise kind("No.", **facts) if issubclass(kind, ApiError) else kind

    pace = Pace(1000, 1.0, clock or HandClock())
    loop = (retry or Retry()).loop(write=write, pace=pace, stops=pace.stops, retry_408=retry_408)
    with pytest.raises(kind) as caught:
        loop(fail)
    assert type(caught.value) is kind
    return len(tried)


@pytest.mark.parametrize("kind", PASSING)
def test_reads_are_repeated_after_what_may_pass(kind: type[ApiError]) -> None:
    unanswered = issubclass(kind, (NoAnswerError, UnreadableAnswerError))
    assert attempts(kind, write=False) == (5 if unanswered else 8)


@pytest.mark.parametrize("kind", LASTING)
@pytest.mark.parametrize("write", [False, True])
def test_what_will_not_pass_is_tried_once(kind: type[ApiError], write: bool) -> None:
    assert attempts(kind, write=write) == 1


@pytest.mark.parametrize("kind", PASSING)
def test_writes_are_repeated_only_where_the_server_cannot_have_acted(kind: type[ApiError]) -> None:
    expected = {RateLimitedError: 8, UnreachableError: 5}
    assert attempts(kind, write=True) == expected.get(kind, 1)


@pytest.mark.parametrize("kind", [KeyboardInterrupt, Stopped, ZeroDivisionError])
@pytest.mark.parametrize("write", [False, True])
def test_an_interrupt_or_a_mistake_of_ours_is_not_repeated(kind: type[BaseException], write: bool) -> None:
    assert attempts(kind, write=write) == 1


def test_a_408_can_be_left_to_a_caller_who_asks_for_less() -> None:
    assert attempts(ServerTimeoutError, write=False, retry_408=False) == 1
    assert attempts(ServerError, write=False, retry_408=False) == 8


@pytest.mark.parametrize("kind", [RateLimitedError, ServerError, ServerTimeoutError])
def test_without_word_from_the_server_waits_grow_and_outlast_its_window(kind: type[ApiError]) -> None:
    clock = HandClock()
    attempts(kind, write=False, clock=clock)
    ceilings = [0.5, 1, 2, 4, 8, 16, 30]
    waits = [wait for wait in clock.waits if wait > 1e-6]  # what rounding left of one is waited for again
    assert len(waits) == len(ceilings)
    assert all(
        ceiling / 2 <= wait + 1e-6 <= ceiling + 2e-6 for wait, ceiling in zip(waits, ceilings, strict=True)
    )
    assert waits[:-1] == sorted(waits[:-1])  # the last is cut at the highest ceiling
    assert sum(waits) > 30.0


def test_two_clients_do_not_come_back_together() -> None:
    clocks = [HandClock(), HandClock()]
    for clock in clocks:
        attempts(ServerError, write=False, clock=clock)
    assert clocks[0].waits != clocks[1].waits


@pytest.mark.parametrize("kind", [RateLimitedError, ServerError])
def test_the_server_decides_how_long_to_wait_where_it_says_so(kind: type[ApiError]) -> None:
    clock = HandClock()
    attempts(kind, write=False, clock=clock, retry_after=17.0)
    assert clock.waits == [17.0] * 7


def test_a_wait_longer_than_minutes_is_the_callers_decision() -> None:
    clock = HandClock()
    assert attempts(RateLimitedError, write=False, clock=clock, retry_after=300.5) == 1
    assert attempts(RateLimitedError, write=True, clock=clock, retry_after=float("inf")) == 1
    assert clock.waits == []
    assert attempts(RateLimitedError, write=False, clock=clock, retry_after=300.0) == 8


def test_retry_after_zero_comes_back_at_once() -> None:
    clock = HandClock()
    assert attempts(RateLimitedError, write=False, clock=clock, retry_after=0.0) == 8
    assert clock.waits == []


def test_a_429_holds_every_other_call_for_as_long() -> None:
    clock = HandClock()
    answers = iter([RateLimitedError("Slow down.", retry_after=9.0)])
    elsewhere: list[float] = []

    class Hooked(Pace):
        def sleep(self, seconds: float, stops: int) -> None:
            with self.request(stops):  # what another thread would do meanwhile
                elsewhere.append(clock.elapsed)
            super().sleep(0.0, stops)

    pace = Hooked(1000, 1.0, clock)

    def call() -> str:
        for error in answers:
            raise error
        return "done"

    assert Retry().loop(write=False, pace=pace, stops=pace.stops)(call) == "done"
    assert elsewhere == [9.0]


def test_a_call_that_was_stopped_is_not_repeated_however_it_failed() -> None:
    pace = Pace(1000, 1.0, HandClock())
    tried: list[int] = []

    def lose() -> None:
        tried.append(1)
        pace.stop()
        raise NoAnswerError("Broken off.")

    with pytest.raises(Stopped):
        Retry().loop(write=False, pace=pace, stops=pace.stops)(lose)
    assert tried == [1]
