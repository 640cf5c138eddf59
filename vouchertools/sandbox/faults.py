"""What can be made to go wrong, and when: at random from a seed, or one by one.

A fault is named by a word:

=================  =====================================================================================
``403`` ...        any status from 400 to 599, answered instead of acting; 502, 503 and 504 as a proxy's
                   HTML page, 429 with ``Retry-After``
``429-bare``       the same without ``Retry-After``
``500-after`` ...  any status but 429, answered after acting
``lost-before``    the connection is closed, nothing was done
``lost-after``     the connection is closed, all was done
``late``           the connection is closed; it is done ``commit_late_s`` seconds of the sandbox's clock
                   later, or at `Faults.release`, with the timestamp of the request's arrival
``hang``           no answer until the client goes away; then as ``late``
``truncated``      all was done; half of the answer arrives, then the connection is closed
``garbled``        all was done; the answer is 200 with JSON of another shape
``not-json``       all was done; the answer is 200 with text that is no JSON
``none``           no fault
=================  =====================================================================================
"""

import random
import re
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from threading import RLock
from typing import Any

NAMES = ("lost-before", "lost-after", "late", "hang", "truncated", "garbled", "not-json", "429-bare", "none")
_STATUS = re.compile(r"(?!429-after)[45]\d\d(-after)?")


class Faults:
    """The faults of one sandbox; all off at first.

    Attributes
    ----------
    latency_ms
        How long every request within the limit waits before it is looked at; a pair is a range to choose from
        at random.
    commit_late_s
        After how many seconds of the sandbox's clock a ``late`` request is carried out.
    retry_after_s
        What an injected 429 says in ``Retry-After``.
    on_page
        Called with the server and the number of the page (1, 2, ...) before each page of
        ``voucherCodes/getAll`` is read; it may change codes, and send requests.
    happened
        How often each operation met each fault, by ``(operation, fault)``.
    """

    def __init__(self) -> None:
        self._lock = RLock()
        self.happened: Counter[tuple[str, str]] = Counter()
        self._late: list[tuple[int, Callable[[], object]]] = []
        self.off()

    def off(self) -> None:
        """Switch every fault off; what is late stays late."""
        with self._lock:
            self.latency_ms: float | tuple[float, float] = 0.0
            self.commit_late_s = 60.0
            self.retry_after_s = 1
            self.on_page: Callable[[Any, int], object] | None = None
            self._pages = 0
            self._rates: list[tuple[str, dict[str, float], random.Random]] = []
            self._next: defaultdict[str, deque[str]] = defaultdict(deque)

    def at_random(self, rates: Mapping[str, float], *, operation: str = "*", seed: int = 0) -> None:
        """Let faults happen at random: ``rates`` maps a fault to its probability.

        ``operation`` is a name such as ``"voucherCodes/add"`` or a pattern such as ``"voucherCodes/*"``; the
        first call whose pattern fits an operation decides about it.

        Raises
        ------
        ValueError
            An unknown fault, or probabilities that are negative or sum to more than 1.
        """
        for name, rate in rates.items():
            _check(name)
            if rate < 0:
                raise ValueError(f"The probability of {name!r} is {rate}.")
        if sum(rates.values()) > 1:
            raise ValueError(f"The probabilities sum to {sum(rates.values())}, more than 1.")
        with self._lock:
            self._rates.append((operation, dict(rates), random.Random(seed)))

    def next(self, operation: str, *names: str) -> None:
        """Give the next requests of an operation, or pattern, one of these faults each; random ones wait."""
        for name in names:
            _check(name)
        with self._lock:
            self._next[operation].extend(names)

    def mutate(self, rate: float, *, seed: int = 0) -> None:
        """Change about ``rate`` codes before each page, cursors' codes often among them. Sets `on_page`.

        A change is a touch, a new window, a deletion or an addition; where the clock stands still, changes
        of one page carry the same timestamp.
        """
        self.on_page = _Mutator(rate, random.Random(seed))

    @property
    def late_count(self) -> int:
        """How many requests are still to be carried out late."""
        with self._lock:
            return len(self._late)

    def release(self) -> int:
        """Carry out now whatever is late; return how many requests that were."""
        return self.settle(None)

    def settle(self, now: int | None) -> int:
        """Carry out what is late and due at ``now`` (microseconds since 1970; None for all)."""
        with self._lock:
            due = [job for job in self._late if now is None or job[0] <= now]
            self._late = [job for job in self._late if not (now is None or job[0] <= now)]
            for _, carry_out in sorted(due, key=lambda job: job[0]):
                carry_out()
        return len(due)

    def postpone(self, due: int, carry_out: Callable[[], object]) -> None:
        """Keep something to be carried out at ``due`` (microseconds since 1970)."""
        with self._lock:
            self._late.append((due, carry_out))

    def draw(self, operation: str) -> str:
        """Decide which fault this request meets."""
        with self._lock:
            name = self._draw(operation)
            if name != "none":
                self.happened[operation, name] += 1
            return name

    def draw_latency_s(self) -> float:
        """Decide how long this request waits, in seconds."""
        latency = self.latency_ms
        return (random.uniform(*latency) if isinstance(latency, tuple) else latency) / 1000

    def count_page(self) -> int:
        """Number the pages of codes since the faults were last switched off."""
        with self._lock:
            self._pages += 1
            return self._pages

    def _draw(self, operation: str) -> str:
        for pattern, names in self._next.items():
            if names and fnmatchcase(operation, pattern):
                return names.popleft()
        for pattern, rates, chance in self._rates:
            if fnmatchcase(operation, pattern):
                left = chance.random()
                for name, rate in rates.items():
                    if left < rate:
                        return name
                    left -= rate
                return "none"
        return "none"


class _Mutator:
    """Changes codes of a server at random, half of the time one that was last given out as a cursor."""

    def __init__(self, rate: float, chance: random.Random) -> None:
        self._rate = rate
        self._chance = chance

    def __call__(self, server: Any, _number: int) -> None:
        times = int(self._rate) + (self._chance.random() < self._rate % 1)
        for _ in range(times):
            self._change_one(server)

    def _change_one(self, server: Any) -> None:
        chance = self._chance
        cursors = server.cursors
        code = (
            chance.choice(cursors) if cursors and chance.random() < 0.5 else server.random_id(chance.random())
        )
        what = chance.choice(("touch", "change_window", "delete", "add")) if code else "add"
        if what == "touch":
            server.touch([code])
        elif what == "delete":
            server.delete_codes([code])
        elif what == "change_window":
            server.change_window([code], None, server.now())
        else:
            server.add_codes([(chance.choice(server.voucher_ids), f"M-{chance.getrandbits(40):010X}")])


def _check(name: str) -> None:
    if name not in NAMES and not _STATUS.fullmatch(name):
        raise ValueError(
            f"There is no fault {name!r}: choose a status such as '500', one that follows the act such as "
            f"'500-after', or one of {', '.join(NAMES)}."
        )
