"""Each test with a `redis_client` runs twice: on fakeredis, and on a real server.

In `make test-all` it runs on a Sentinel set and on a Cluster too.
"""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import redis
from redis.crc import key_slot
from sqlalchemy import Engine

from tests.conftest import wait_until
from webapp.connection.breaker import Breaker
from webapp.connection.embedded import EmbeddedServer, find_binary
from webapp.connection.recorder import Command, Recording, recording, unrecorded
from webapp.connection.roles import breaker_of, pools_of
from webapp.connection.sets import SETS
from webapp.connection.urls import client_for
from webapp.keys import family_of
from webapp.scripts import preload
from webapp.shop import models
from webapp.shop.database import open_database

_NAMESPACE = "rpl"
_MANY_KEYS = {"DEL", "UNLINK", "EXISTS", "MGET"}
_NO_KEYS = {"HELLO", "PING", "SCRIPT", "FLUSHALL", "SCAN", "CLUSTER", "ROLE", "CLIENT"}


@pytest.fixture(scope="session")
def server() -> Iterator[EmbeddedServer]:
    """A server of the tests' own, on a unix socket."""
    binary = find_binary()
    assert binary is not None, "no valkey-server and no redis-server to test on"
    with TemporaryDirectory(prefix="rpl-") as folder:
        server = EmbeddedServer("cache", binary, Path(folder), Path(folder))
        server.start()
        server.await_answer()
        yield server
        server.kill()


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    """A shop without any product."""
    engine = open_database(f"sqlite:///{tmp_path / 'shop.db'}")
    models.metadata.create_all(engine)
    yield engine
    engine.dispose()


_SETS = [pytest.param(f"{kind}_set", marks=pytest.mark.slow) for kind in SETS]


@pytest.fixture(params=["fake", "server", *_SETS])
def redis_client(request: pytest.FixtureRequest) -> Iterator[redis.Redis]:
    """The app's own client of an empty server that knows all scripts."""
    url = "fake://patterns"
    if request.param == "server":
        url = f"unix://{request.getfixturevalue('server').socket}"
    elif request.param != "fake":
        url = request.getfixturevalue(request.param).url
    client = client_for(url, role="cache", max_connections=16)
    _empty(client)
    yield client
    for pool in pools_of(client):
        pool.disconnect()


@pytest.fixture
def server_client(server: EmbeddedServer) -> Iterator[redis.Redis]:
    """The same on the real server only: for threads."""
    client = client_for(f"unix://{server.socket}", role="cache", max_connections=16)
    _empty(client)
    yield client
    client.connection_pool.disconnect()


class Line:
    """A line to the server that can be cut and mended; cut from the start."""

    def __init__(self, server: EmbeddedServer, end: Path) -> None:
        self.client = client_for(f"unix://{end}", role="cache", max_connections=4)
        self._server, self._end = server, end

    @property
    def breaker(self) -> Breaker:
        return breaker_of(self.client)

    def cut(self) -> None:
        self._end.unlink()
        self.client.connection_pool.disconnect()

    def mend(self) -> None:
        self._end.symlink_to(self._server.socket)


@pytest.fixture
def line(server: EmbeddedServer, server_client: redis.Redis) -> Iterator[Line]:
    with TemporaryDirectory(prefix="rpl-") as folder:
        line = Line(server, Path(folder) / "line.sock")
        line.mend()
        yield line
        if not line._end.exists():
            line.mend()  # or its breaker would ask for ever
        wait_until(lambda: not line.breaker.is_open)
        line.client.connection_pool.disconnect()


@pytest.fixture
def redis_down(line: Line) -> redis.Redis:
    """A client whose server does not answer."""
    line.cut()
    return line.client


@pytest.fixture(autouse=True)
def recorded() -> Iterator[Recording]:
    """What the test itself sent; a recording inside of it keeps its own."""
    with recording(Recording("test")) as own:
        yield own


@pytest.fixture(autouse=True)
def one_slot(recorded: Recording) -> Iterator[None]:
    """All keys of one command or script lie in one Cluster slot."""
    yield
    for command in [c for trip in recorded.trips for c in trip.commands]:
        slots = {key_slot(key.encode()) for key in keys_of(command)}
        assert len(slots) <= 1, f"{command.args} spans slots {slots}"


@pytest.fixture(autouse=True)
def no_leaked_keys(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every key that is left has a reason, or a TTL as its family may have."""
    name = next((n for n in _CLIENTS if n in request.fixturenames), None)
    if name is None:
        yield
        return
    client: redis.Redis = request.getfixturevalue(name)
    yield
    with unrecorded():
        for key in client.scan_iter():
            family = family_of(_NAMESPACE, key.decode())
            assert family is not None, f"{key!r} is in no family"
            if family.forever_because:
                continue
            ttl_ms = client.pttl(key)  # -2: it ended just now
            assert ttl_ms == -2 or 0 < ttl_ms <= (family.ttl_ms or 0), f"{key!r} stays"


_CLIENTS = ("redis_client", "server_client")


def keys_of(command: Command) -> list[str]:
    name, *args = (
        a.decode(errors="replace") if isinstance(a, bytes) else str(a)
        for a in command.args
    )
    if name in ("EVALSHA", "EVAL"):
        return args[2 : 2 + int(args[1])]
    if name in _MANY_KEYS:
        return args
    if name == "XREADGROUP":
        named = args[args.index("STREAMS") + 1 :]
        return named[: len(named) // 2]
    return [] if name.split()[0] in _NO_KEYS else args[:1]


def _empty(client: redis.Redis) -> None:
    with unrecorded():
        client.flushall()
        preload(client)
