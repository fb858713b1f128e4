"""All workers' counts, read from the Prometheus files that they share."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from itertools import pairwise
from math import inf
from pathlib import Path

from prometheus_client import Metric
from prometheus_client.multiprocess import MultiProcessCollector

_READS = "rpl_cache_reads_total"
_EVENTS = "rpl_events_total"
_TRIPS = "rpl_redis_trip_seconds_bucket"
_POOL = "rpl_pool_connections"
_WAITS = "rpl_pool_waits"
_OUTCOMES = {"hit": "hits", "miss": "misses", "bypass": "bypasses"}


@dataclass(frozen=True, slots=True)
class Counts:
    """Totals since the files began or, from `since`, what was added."""

    hits: int = 0
    misses: int = 0
    bypasses: int = 0
    by_shoppers: int = 0  # of these reads, those of the simulated shoppers
    trips: Mapping[float, int] = field(default_factory=dict)  # at most so many seconds
    events: Mapping[str, int] = field(default_factory=dict)  # by "page.event"
    # By process and node, how many are "in use" and so on: as it is, never a growth.
    pools: Mapping[tuple[str, str], Mapping[str, int]] = field(default_factory=dict)

    def since(self, before: "Counts") -> "Counts":
        """What was added; nothing where the totals began anew in between."""
        trips = {le: n - before.trips.get(le, 0) for le, n in self.trips.items()}
        events = {
            name: n - before.events.get(name, 0) for name, n in self.events.items()
        }
        added = {name: getattr(self, name) - getattr(before, name) for name in _READ}
        if min(0, *added.values(), *trips.values(), *events.values()) < 0:
            return Counts()
        return Counts(**added, trips=trips, events=events)


_READ = tuple(
    f.name for f in fields(Counts) if f.name not in ("trips", "events", "pools")
)


def read(folder: Path) -> Counts:
    """The totals of every worker there was; zeros where the folder is missing."""
    reads: Counter[str] = Counter()
    trips: Counter[float] = Counter()
    events: Counter[str] = Counter()
    pools: dict[tuple[str, str], dict[str, int]] = {}
    for metric in _metrics(folder):
        for sample in metric.samples:
            if sample.name == _TRIPS:
                trips[float(sample.labels["le"])] += int(sample.value)
            elif sample.name == _EVENTS:
                name = f"{sample.labels['page']}.{sample.labels['event']}"
                events[name] += int(sample.value)
            elif sample.name in (_POOL, _WAITS):
                pool = sample.labels["pid"], sample.labels["node"]
                state = sample.labels.get("state", "waits")
                pools.setdefault(pool, {})[state] = int(sample.value)
            elif sample.name == _READS:
                reads[_OUTCOMES[sample.labels["outcome"]]] += int(sample.value)
                if sample.labels["traffic"] == "shopper":
                    reads["by_shoppers"] += int(sample.value)
    return Counts(**reads, trips=trips, events=events, pools=pools)


def percentile_us(seconds: Iterable[Counts], share: float) -> int | None:
    """The trip time that this share of all the trips kept to; None without a trip.

    Linear within a bucket; a trip longer than the last bound counts as that long.
    """
    trips: Counter[float] = Counter()
    for second in seconds:
        trips.update(second.trips)
    wanted = trips[inf] * share
    if not wanted:
        return None
    bounds = [(0.0, 0), *sorted(trips.items())]
    for (low, below), (high, until) in pairwise(bounds):
        if until >= wanted:
            width = 0.0 if high == inf else high - low
            return round(1e6 * (low + width * (wanted - below) / (until - below)))
    return None


def _metrics(folder: Path) -> Iterator[Metric]:
    if folder.is_dir():
        files = MultiProcessCollector(None, path=str(folder))  # type: ignore[no-untyped-call]
        yield from files.collect()  # type: ignore[no-untyped-call]
