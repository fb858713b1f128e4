"""Who came to the shop: days in UTC, the last seven as a week, and made-up visitors."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

import redis

from webapp import keys
from webapp.patterns.unique_visitors import Bytes, Count, Day, UniqueVisitors, Visit
from webapp.scripts import load as load_script

GROUP = "visits"  # all days share a slot, so that they can be merged
SIMULATED = 100_000
_DAYS = 7
_KEPT_DAYS = 8  # after a day has ended
_BATCH = 1_000  # visitors a script call: the server is held up few milliseconds
_BATCHES = 5  # script calls a step

_simulate = load_script("unique_visitors/simulate")


@dataclass(frozen=True)
class Period:
    """A day, or all of them together."""

    date: str  # "2026-11-22"; of the week, "2026-11-16/2026-11-22"
    count: Count
    bytes: Bytes


@dataclass(frozen=True)
class Point:
    """What the counters said after so many made-up visitors."""

    count: Count
    ones: int  # how often PFADD had answered 1


class Visits:
    def __init__(
        self,
        client: redis.Redis,
        scratch: redis.Redis,  # where made-up visitors are counted
        namespace: str,
        *,
        today: Callable[[], date] = lambda: datetime.now(UTC).date(),
    ) -> None:
        self.client, self.scratch = client, scratch
        self.unique = UniqueVisitors()
        self._namespace = namespace
        self._today = today

    @property
    def today(self) -> date:
        return self._today()

    def count(self, visitor: str) -> Visit:
        """Count a visitor today. Raises redis.RedisError."""
        return self.unique.visit(self.client, self._day(self.today), visitor=visitor)

    def periods(self) -> tuple[list[Period], Period]:
        """The last seven days, oldest first, and their week (two round trips)."""
        dates = [self.today - timedelta(days=ago) for ago in reversed(range(_DAYS))]
        days = [self._day(date) for date in dates]
        week = self._key(keys.WEEK_HLL), self._key(keys.WEEK_SET)
        counts = self.unique.counts(self.client, *week, days=days)
        pairs = [*((day.hll, day.exact) for day in days), week]
        sizes = self.unique.bytes(self.client, pairs=pairs)
        found = [
            Period(date.isoformat(), count, size)
            for date, count, size in zip(dates, counts.days, sizes[:-1], strict=True)
        ]
        span = f"{found[0].date}/{found[-1].date}"
        return found, Period(span, counts.week, sizes[-1])

    def key_names(self) -> list[str]:
        """Today's keys, and the week's."""
        day = self._day(self.today)
        week = self._key(keys.WEEK_HLL), self._key(keys.WEEK_SET)
        return [day.hll, day.exact, *week]

    def simulate(self, run: str) -> list[Point]:
        """Let the next made-up visitors of a run come; its curve so far."""
        ttl_ms = keys.SIMULATED_HLL.ttl_ms or 0
        names = self.simulated(run)
        for _ in range(_BATCHES):
            points = simulate(
                self.scratch, names, seed=run, size=SIMULATED, ttl_ms=ttl_ms
            )
        return points

    def curve(self, run: str) -> list[Point]:
        """How far a simulation has come."""
        curve = self.scratch.lrange(self.simulated(run)[2], 0, -1)
        return [_point(entry) for entry in curve]

    def simulated_bytes(self, run: str) -> Bytes:
        hll, exact, _ = self.simulated(run)
        return self.unique.bytes(self.scratch, pairs=[(hll, exact)])[0]

    def simulated(self, run: str) -> tuple[str, str, str]:
        """HyperLogLog, Set and curve of a simulation."""
        hll, exact, curve = (
            keys.key(self._namespace, family, run)
            for family in (keys.SIMULATED_HLL, keys.SIMULATED_SET, keys.CURVE)
        )
        return hll, exact, curve

    def _key(self, family: keys.Family, rest: str = "") -> str:
        return keys.key(self._namespace, family, GROUP, rest)

    def _day(self, day: date) -> Day:
        gone = day + timedelta(days=1 + _KEPT_DAYS)
        at = datetime.combine(gone, time(), UTC)
        name = day.isoformat()
        return Day(
            hll=self._key(keys.DAY_HLL, name),
            exact=self._key(keys.DAY_SET, name),
            expires_ms=round(at.timestamp()) * 1000,
        )


def simulate(
    client: redis.Redis,
    names: tuple[str, str, str],
    *,
    seed: str,
    size: int,
    ttl_ms: int,
) -> list[Point]:
    """One batch of visitors, at most to `size` (one script, one round trip).

    `names` are the keys of HyperLogLog, Set and curve.
    """
    curve = _simulate(client, names, [seed, _BATCH, size, ttl_ms])
    return [_point(entry) for entry in curve]


def _point(entry: bytes | str) -> Point:
    exact, estimate, ones = map(int, entry.split())
    return Point(Count(exact, estimate), ones)
