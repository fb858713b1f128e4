"""What a killed server still has, and what keeping it cost: four scratch servers."""

import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import redis

from webapp import keys
from webapp.connection.embedded import EmbeddedServer
from webapp.connection.roles import breaker_of
from webapp.connection.urls import client_for, probe_client
from webapp.experiments import (
    Bench,
    Control,
    Experiment,
    Outcome,
    Row,
    Run,
    Tone,
    duration,
    running,
)
from webapp.experiments.redlock import server_binary

_BATCH = (
    100  # writes a round trip: an fsync each would take longer than a visitor waits
)
_TIMEOUT_S = 5.0
_SNAPSHOT_S = 10.0
_TTL_MS = 60_000


@dataclass(frozen=True)
class Mode:
    """One way to keep data."""

    name: str
    settings: tuple[str, ...]
    snapshot: bool = False  # one is made when half is written


MODES = (
    Mode("No persistence", ('save ""', "appendonly no")),
    Mode("RDB", ('save ""', "appendonly no"), snapshot=True),
    Mode("AOF everysec", ('save ""', "appendonly yes", "appendfsync everysec")),
    Mode("AOF always", ('save ""', "appendonly yes", "appendfsync always")),
)


@dataclass(frozen=True)
class Kept:
    mode: Mode
    kept: int  # of the writes that were acknowledged
    trip_us: int  # the median of a round trip with 100 of them


def run_kill(bench: Bench, *, writes: int) -> Outcome:
    with running(bench, "kill") as run:
        names = [
            keys.key(bench.namespace, bench.lab, run.id, str(n)) for n in range(writes)
        ]
        found = [_kept(run, mode, names) for mode in MODES]
    slowest = max(one.trip_us for one in found)
    lost = {one.mode.name: writes - one.kept for one in found}
    gone = lost["No persistence"]
    return Outcome(
        rows=[row for one in found for row in _rows(one, writes, slowest)],
        summary=f"Gone after kill -9: {gone:,} without persistence, "
        f"{lost['RDB']:,} with a snapshot halfway, {lost['AOF everysec']:,} with "
        f"everysec, {lost['AOF always']:,} with always. A power cut may take "
        "everysec's last second as well.",
        tone="no" if gone else "ok",
        verdict=f"{gone:,} gone",
        recordings=run.recordings,
    )


def _rows(one: Kept, writes: int, slowest_us: int) -> list[Row]:
    tone: Tone = "ok" if one.kept == writes else "no"
    return [
        Row(f"{one.mode.name}, kept", f"{one.kept:,}", tone, one.kept / writes),
        Row(
            f"{one.mode.name}, {_BATCH} writes",
            duration(one.trip_us),
            "ok",
            one.trip_us / slowest_us,
        ),
    ]


def _kept(run: Run, mode: Mode, names: Sequence[str]) -> Kept:
    with _server(mode) as server, run.recording(f"{mode.name}: write") as own:
        with _client(server) as client:
            half = len(names) // 2
            trips = _write(client, names[:half])
            if mode.snapshot:
                _snapshot(client)
            trips += _write(client, names[half:])
        server.kill()
        server.start()
        _await_loaded(server)
        with _client(server) as client:
            kept = int(client.dbsize())
    own.verdict = ("ok" if kept == len(names) else "no"), f"{kept:,} kept"
    return Kept(mode, kept, round(median(trips)))


@contextmanager
def _server(mode: Mode) -> Iterator[EmbeddedServer]:
    binary = server_binary()
    if binary is None:
        raise redis.ConnectionError("there is no server to start here")
    with tempfile.TemporaryDirectory(prefix="rpl-") as folder:
        place = Path(folder)
        server = EmbeddedServer("lab", binary, place, place, mode.settings)
        try:
            server.start()
            server.await_answer()
            yield server
        finally:
            server.kill()


@contextmanager
def _client(server: EmbeddedServer) -> Iterator[redis.Redis]:
    url = f"unix://{server.socket}"
    client = client_for(url, role="lab", max_connections=1, timeout_s=_TIMEOUT_S)
    try:
        yield client
    finally:
        breaker_of(client).end()
        client.connection_pool.disconnect()


def _write(client: redis.Redis, names: Sequence[str]) -> list[float]:
    """Writes that all got OK: the time of each round trip, in us."""
    took = []
    for start in range(0, len(names), _BATCH):
        with client.pipeline(transaction=False) as pipeline:
            for name in names[start : start + _BATCH]:
                pipeline.set(name, "1", px=_TTL_MS)
            began = time.perf_counter()
            pipeline.execute()
            took.append((time.perf_counter() - began) * 1e6)
    return took


def _snapshot(client: redis.Redis) -> None:
    """Until it is on disk. Raises redis.TimeoutError if it takes too long."""
    client.execute_command("BGSAVE")
    deadline = time.monotonic() + _SNAPSHOT_S
    while time.monotonic() < deadline:
        facts: Any = client.info("persistence")
        if not facts["rdb_bgsave_in_progress"]:
            return
        time.sleep(0.05)
    raise redis.TimeoutError("the snapshot takes too long")


def _await_loaded(server: EmbeddedServer) -> None:
    """Until it has read what it kept."""
    deadline = time.monotonic() + _SNAPSHOT_S
    with closing(probe_client(f"unix://{server.socket}")) as client:
        while time.monotonic() < deadline:
            try:
                client.ping()
                return
            except redis.ConnectionError:
                time.sleep(0.01)
    raise redis.TimeoutError("loading takes too long")


EXPERIMENTS: tuple[Experiment, ...] = (
    Experiment(
        name="kill-9",
        title="Kill a server with 10,000 writes",
        hypothesis="A write that got OK is in memory. A snapshot or an AOF decides "
        "whether it outlives the server. Own instances, other pages keep their keys.",
        controls=(
            Control(
                "writes",
                "Writes to each",
                "range",
                min=2_000,
                max=10_000,
                step=1_000,
                value=10_000,
            ),
        ),
        run=run_kill,
    ),
)
