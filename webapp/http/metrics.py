"""Counts as Prometheus metrics, in files all workers share: Redis pays nothing."""

from pathlib import Path
from typing import Literal

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector

_FINE = (50, 100, 150, 200, 300, 400, 500, 750, 1000, 1500, 2000, 3000, 5000)
_COARSE = (10_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000)
_BUCKETS = tuple(us / 1e6 for us in _FINE + _COARSE)

Traffic = Literal["visitor", "shopper"]

CACHE_READS = Counter(
    "rpl_cache_reads", "Reads of a cached page", ["room", "outcome", "traffic"]
)
EVENTS = Counter("rpl_events", "What the pages did, for their tiles", ["page", "event"])
TRIPS = Histogram(
    "rpl_redis_trip_seconds", "Round trips to Redis", ["role"], buckets=_BUCKETS
)
REQUESTS = Counter("rpl_http_requests", "Requests answered", ["endpoint", "status"])
POOL = Gauge(
    "rpl_pool_connections",
    "Connections of each worker's pools",
    ["node", "state"],
    multiprocess_mode="liveall",
)
POOL_WAITS = Gauge(
    "rpl_pool_waits",
    "How often all connections of a worker's pool were in use",
    ["node"],
    multiprocess_mode="liveall",
)
LATENCY = Histogram(
    "rpl_http_request_seconds", "Time to answer", ["endpoint"], buckets=_BUCKETS
)


def observe_trip(role: str, seconds: float) -> None:
    TRIPS.labels(role).observe(seconds)


def exposition(folder: Path) -> tuple[bytes, str]:
    """All workers' counts as Prometheus text, and its content type."""
    return generate_latest(registry(folder)), CONTENT_TYPE_LATEST


def registry(folder: Path) -> CollectorRegistry:
    """Of all workers where the launcher made the folder, else of this process."""
    if not folder.is_dir():
        return REGISTRY
    joined = CollectorRegistry()
    MultiProcessCollector(joined, path=str(folder))  # type: ignore[no-untyped-call]
    return joined
