"""Fixtures of all tiers: a seeded database, servers of our own, the app itself."""

import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import redis
import time_machine
from flask import Flask
from flask.testing import FlaskClient
from jinja2 import BytecodeCache, FileSystemBytecodeCache

from webapp import create_app
from webapp.admin import sign_in
from webapp.connection import urls
from webapp.connection.embedded import find_binary
from webapp.connection.roles import Clients
from webapp.connection.sets import SERVICE, SETS, LocalSet
from webapp.settings import Settings, from_environ
from webapp.shop.database import open_database
from webapp.shop.seed import seed

ROOT = Path(__file__).parent.parent

# The same examples in every run of CI; others every time elsewhere.
hypothesis.settings.register_profile("ci", derandomize=True, database=None)
if os.environ.get("CI"):
    hypothesis.settings.load_profile("ci")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--redis-set",
        choices=SETS,
        help="run the tests of pages and of servers on such a set of real servers",
    )


def pytest_runtest_setup(item: pytest.Item) -> None:
    marker = item.get_closest_marker("one_server")
    if marker is not None and item.config.getoption("--redis-set"):
        pytest.skip(f"of one server: {marker.args[0]}")


def wait_until(holds: Callable[[], Any], *, within_s: float = 20.0) -> Any:
    """Poll until something true comes back; fails with the last answer."""
    deadline = time.monotonic() + within_s
    while not (answer := holds()):
        assert time.monotonic() < deadline, f"still {answer!r} after {within_s} s"
        time.sleep(0.02)
    return answer


@pytest.fixture(scope="session")
def seeded(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A seeded shop database, made once for all who run the tests; tests copy it."""
    shared = tmp_path_factory.getbasetemp()
    if worker_id != "master":
        shared = shared.parent
    file = shared / "shop.db"
    with (shared / "shop.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not file.exists():
            _seed(file)
    return file


def _seed(file: Path) -> None:
    engine = open_database(f"sqlite:///{file}")
    seed(engine, lambda done, total: None)
    with engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    engine.dispose()


@pytest.fixture
def instance(tmp_path: Path, seeded: Path) -> Path:
    return new_instance(tmp_path / "instance", seeded)


def new_instance(folder: Path, seeded: Path) -> Path:
    """An instance folder with a shop of its own, and no worker to start."""
    folder.mkdir(mode=0o700)
    (folder / "workers").mkdir(mode=0o700)
    shutil.copy(seeded, folder / "shop.db")
    return folder


@pytest.fixture
def redis_urls(
    instance: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> dict[str, str]:
    """Two imitations, or an empty set of real servers if that was asked for."""
    url = emptied_set(request)
    if url is None:
        return {
            "REDIS_CACHE_URL": f"fake://{instance}/cache",
            "REDIS_DURABLE_URL": f"fake://{instance}/durable",
        }
    monkeypatch.setattr(urls, "fake_server", _skip)
    monkeypatch.setattr(time_machine, "travel", _skip)
    return {"REDIS_URL": url}


def emptied_set(request: pytest.FixtureRequest) -> str | None:
    """The URL of the set that was asked for, with nothing in it; None: none was."""
    kind = request.config.getoption("--redis-set")
    if kind is None:
        return None
    url: str = request.getfixturevalue(f"{kind}_set").url
    with urls.probe_client(url) as client:
        client.flushall()
    return url


def _skip(*_: object, **__: object) -> None:
    pytest.skip("of an imitation only: nobody turns real servers off, or their clock")


@pytest.fixture
def imitation(request: pytest.FixtureRequest) -> None:
    """For what is so on two imitations only."""
    if request.config.getoption("--redis-set"):
        _skip()


@pytest.fixture
def settings(instance: Path, redis_urls: dict[str, str]) -> Settings:
    return from_environ({"INSTANCE_PATH": str(instance), "DEMO": "1"} | redis_urls)


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> BytecodeCache:
    """Templates that one app compiled, for the next: half of a first page's time."""
    return FileSystemBytecodeCache(str(tmp_path_factory.mktemp("compiled")))


@pytest.fixture
def app(settings: Settings, compiled: BytecodeCache) -> Iterator[Flask]:
    app = create_app(settings)
    app.jinja_env.bytecode_cache = compiled
    yield app
    clients: Clients = app.extensions["clients"]
    clients.close()
    app.extensions["catalog"].engine.dispose()


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


@pytest.fixture
def guest(app: Flask) -> FlaskClient:
    """A browser in which somebody signed in as a guest."""
    client = app.test_client()
    client.environ_base["HTTP_SEC_FETCH_SITE"] = "same-origin"
    assert client.post("/api/session/guest").status_code == 200
    return client


@pytest.fixture
def cache_down(app: Flask) -> None:
    """The cache is away from here on; the durable server answers."""
    settings: Settings = app.extensions["settings"]
    urls.fake_server(settings.redis_urls["cache"]).connected = False


@pytest.fixture
def redis_down(app: Flask) -> None:
    """The app's servers are away from here on, for its probes too."""
    settings: Settings = app.extensions["settings"]
    for url in settings.redis_urls.values():
        urls.fake_server(url).connected = False


@dataclass
class RedisProcess:
    """A server of our own on a unix socket; may be killed and started again."""

    folder: Path
    process: subprocess.Popen[bytes] | None = None
    options: tuple[str, ...] = ()

    @property
    def socket(self) -> Path:
        return self.folder / "redis.sock"

    @property
    def url(self) -> str:
        return f"unix://{self.socket}"

    def start(self) -> None:
        command = ["redis-server", "--port", "0", "--unixsocket", str(self.socket)]
        command += ["--save", "", "--dir", str(self.folder), *self.options]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        wait_until(self.answers)

    def answers(self) -> bool:
        with redis.Redis(unix_socket_path=str(self.socket)) as client:
            try:
                return bool(client.ping())
            except redis.RedisError:
                return False

    def client(self) -> redis.Redis:
        return redis.Redis(unix_socket_path=str(self.socket))

    def send(self, sign: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(sign)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


@contextmanager
def redis_server(folder: Path) -> Iterator[RedisProcess]:
    server = RedisProcess(folder)
    server.start()
    try:
        yield server
    finally:
        server.kill()


@pytest.fixture
def redis_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisProcess]:
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def durable_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisProcess]:
    """A second server: sessions outlive an outage of the first."""
    with redis_server(tmp_path_factory.mktemp("durable")) as server:
        yield server


@pytest.fixture
def redis_url(request: pytest.FixtureRequest) -> str:
    """Of `redis_process`, or of a set if that was asked for; nothing is in it."""
    return emptied_set(request) or str(request.getfixturevalue("redis_process").url)


@pytest.fixture
def durable_url(request: pytest.FixtureRequest) -> str:
    """Of `durable_process`, or of the same set."""
    return emptied_set(request) or str(request.getfixturevalue("durable_process").url)


@pytest.fixture(scope="module")
def kept_redis_url(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The same for tests that share what runs on it."""
    if url := emptied_set(request):
        yield url
        return
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server.url


@contextmanager
def local_set(kind: str, folder: Path) -> Iterator[LocalSet]:
    binary = find_binary()
    assert binary is not None, "no valkey-server and no redis-server to test on"
    servers = SETS[kind](binary, folder)
    for member in servers.members:  # a replica of a busy machine is late and not gone
        member.config = [
            line.replace("max-lag 2", "max-lag 60") for line in member.config
        ]
    try:
        servers.start()
        allow_silence(servers, ms=30_000)
        yield servers
    finally:
        servers.end()


def allow_silence(servers: LocalSet, *, ms: int) -> None:
    """How long a server may be silent until it is replaced: long on a busy machine."""
    for member in servers.members:
        if member.is_sentinel:
            member.ask("SENTINEL", "SET", SERVICE, "down-after-milliseconds", ms)
        elif "cluster" in servers.url and member.is_running:
            member.ask("CONFIG", "SET", "cluster-node-timeout", ms)


@pytest.fixture(scope="session")
def sentinel_set(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalSet]:
    """A primary, two replicas and three sentinels; whoever harms it takes its own."""
    with local_set("sentinel", tmp_path_factory.mktemp("sentinel")) as servers:
        yield servers


@pytest.fixture(scope="session")
def cluster_set(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalSet]:
    """Three primaries and three replicas; whoever harms it takes its own."""
    with local_set("cluster", tmp_path_factory.mktemp("cluster")) as servers:
        yield servers


@dataclass
class Served:
    """The web server as it runs for users, without the launcher around it."""

    port: int
    process: subprocess.Popen[bytes]
    environ: dict[str, str] = field(repr=False)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


@contextmanager
def served(
    instance: Path, redis_url: str, *, durable_url: str | None = None, workers: int = 1
) -> Iterator[Served]:
    """gunicorn with this app, on a free port; quiet but for what is asked of it."""
    port = free_port()
    metrics = instance / "metrics"
    metrics.mkdir(exist_ok=True)
    environ = os.environ | {
        "INSTANCE_PATH": str(instance),
        "REDIS_URL": redis_url,
        "REDIS_DURABLE_URL": durable_url or redis_url,
        "PORT": str(port),
        "WORKERS": str(workers),
        "DEMO": "1",
        "PROMETHEUS_MULTIPROC_DIR": str(metrics),
    }
    config, target = "python:webapp.http.gunicorn", "webapp.http.gunicorn:make_app()"
    process = subprocess.Popen(
        [sys.executable, "-m", "gunicorn", "-c", config, target], cwd=ROOT, env=environ
    )
    app = Served(port, process, environ)
    try:
        wait_until(lambda: _is_alive(app.url), within_s=20)
        yield app
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _is_alive(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/healthz", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def sign_in_as_admin(client: FlaskClient) -> FlaskClient:
    """With the link that a start prints."""
    instance = client.application.extensions["settings"].instance_path
    token = sign_in.offer_link(instance)
    client.environ_base["HTTP_SEC_FETCH_SITE"] = "same-origin"  # as browsers do
    assert client.post("/admin/login", data={"token": token}).status_code == 303
    return client


@pytest.fixture
def admin(app: Flask) -> FlaskClient:
    """A browser that is an admin's."""
    return sign_in_as_admin(app.test_client())
