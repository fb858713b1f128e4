"""Cache-aside and the recorder beside their floors, interleaved in one run.

Everything runs on one embedded server over a unix socket. Each line is the median of
several rounds; read the ratios, absolute times belong to the machine.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import redis

sys.path.insert(0, str(Path(__file__).parent.parent.parent))

from webapp.connection.recorder import Recording, recording
from webapp.connection.urls import client_for
from webapp.patterns.cache_aside import CacheAside, Entry

ROUNDS, TURNS = 9, 2000
ROW = {"id": 1042, "name": "Enamel kettle", "text": "x" * 900}  # about 1 KB
PAYLOAD = json.dumps(ROW).encode()
ENTRY = Entry("bench:catalog:product:{1}", "bench:catalog:lease:{1}")
CACHE = CacheAside()


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/redis.sock"
        server = subprocess.Popen(
            ["redis-server", "--port", "0", "--unixsocket", path, "--save", ""],
            stdout=subprocess.DEVNULL,
        )
        try:
            _wait(path)
            _run(path)
        finally:
            server.terminate()
            server.wait()


def _run(path: str) -> None:
    plain = redis.Redis(unix_socket_path=path)
    ours = client_for(f"unix://{path}", role="cache", max_connections=4)

    def read() -> None:
        CACHE.read(ours, ENTRY, load=lambda: PAYLOAD, encode=bytes, decode=bytes)

    def miss() -> None:
        ours.delete(ENTRY.value)
        read()

    def unlocked_miss() -> None:
        ours.delete(ENTRY.value)
        if ours.get(ENTRY.value) is None:
            ours.set(ENTRY.value, PAYLOAD, px=3_600_000)

    def recorded() -> None:
        with recording(Recording("bench")):
            ours.get(ENTRY.value)

    read()
    compare(
        "a hit of 1 KB",
        ("bare GET, same client", lambda: ours.get(ENTRY.value)),
        ("cache-aside read", read),
    )
    compare("a miss", ("unlocked GET, SET", unlocked_miss), ("cache-aside", miss))
    compare(
        "the recorder, a GET",
        ("redis-py", lambda: plain.get(ENTRY.value)),
        ("recorder and breaker, idle", lambda: ours.get(ENTRY.value)),
        ("recording", recorded),
    )


def compare(title: str, *variants: tuple[str, Callable[[], object]]) -> None:
    """Time all variants in turn, round after round; ratios are to the first."""
    times: dict[str, list[float]] = {name: [] for name, _ in variants}
    for _ in range(ROUNDS):
        for name, do in variants:
            began = time.perf_counter()
            for _ in range(TURNS):
                do()
            times[name].append((time.perf_counter() - began) / TURNS * 1e6)
    floor = statistics.median(next(iter(times.values())))
    print(f"\n{title}")
    for name, us in times.items():
        median = statistics.median(us)
        print(f"  {name:<28} {median:8.1f} µs  {median / floor:5.2f}x")


def _wait(path: str) -> None:
    deadline = time.monotonic() + 5
    client = redis.Redis(unix_socket_path=path)
    while time.monotonic() < deadline:
        try:
            client.ping()
        except redis.ConnectionError:
            time.sleep(0.02)
        else:
            return
    raise SystemExit("the server does not answer")


if __name__ == "__main__":
    main()
