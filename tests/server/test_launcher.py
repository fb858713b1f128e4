"""The app as a user starts it: what it starts, keeps running, and leaves behind."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest
import redis
import simple_websocket
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.conftest import ROOT, wait_until
from webapp import instance as ground
from webapp import process
from webapp.connection.embedded import EmbeddedServer, ServerError, find_binary
from webapp.workers.fleet import Fleet

pytestmark = pytest.mark.server

_SERVE = ("-m", "webapp", "serve")
_WITHOUT_SERVERS = """
import sys
from webapp import launcher
from webapp.settings import from_environ
launcher.find_binary = lambda: None
sys.exit(launcher.serve(from_environ()))
"""


@dataclass
class App:
    launcher: subprocess.Popen[bytes]
    instance: Path
    printed: Path

    @property
    def output(self) -> str:
        return self.printed.read_text()

    @property
    def address(self) -> tuple[str, int]:
        found = re.search(r"http://([\d.]+):(\d+)", self.output)
        assert found is not None
        return found[1], int(found[2])

    def get(self, path: str) -> tuple[int, str]:
        connection = HTTPConnection(*self.address, timeout=30)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def redis(self, role: str) -> redis.Redis:
        return redis.Redis(
            unix_socket_path=str(self.instance / f"{role}.sock"),
            socket_timeout=1,
            retry=Retry(NoBackoff(), 0),
        )

    def server_pid(self, role: str) -> int | None:
        with self.redis(role) as client:
            try:
                return int(client.info("server")["process_id"])
            except redis.RedisError:
                return None

    def is_watched(self, role: str) -> bool:
        """Someone asks again and again; who asks until it answers has stopped."""
        with self.redis(role) as client:
            try:
                others = [c for c in client.client_list() if c["cmd"] == "ping"]
            except redis.RedisError:
                return False
        return any(int(c["age"]) - int(c["idle"]) >= 2 for c in others)

    def processes(self) -> set[int]:
        return processes_of(self.instance)

    def is_gone(self) -> bool:
        return self.launcher.poll() is not None and not self.processes()


def processes_of(instance: Path) -> set[int]:
    """All that run with this instance folder, whoever their parent is now."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            environ = (folder / "environ").read_bytes().split(b"\0")
            # A server's title hides its environment, and names its socket.
            title = (folder / "cmdline").read_bytes()
        except OSError:  # it ended meanwhile
            continue
        ours = f"INSTANCE_PATH={instance}".encode() in environ
        if ours or f"{instance}/".encode() in title:
            found.add(int(folder.name))
    return found


def start(instance: Path, *command: str, cwd: Path = ROOT, **environ: str) -> App:
    printed = instance.parent / f"printed-{time.monotonic_ns()}"
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("REDIS", "PORT"))}
    with printed.open("wb") as output:
        launcher = subprocess.Popen(
            [sys.executable, *(command or _SERVE)],
            cwd=cwd,
            env=clean | {"INSTANCE_PATH": str(instance), "PORT": "0"} | environ,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return App(launcher, instance, printed)


@contextmanager
def running(
    instance: Path, *command: str, cwd: Path = ROOT, **environ: str
) -> Iterator[App]:
    app = start(instance, *command, cwd=cwd, **environ)
    try:
        wait_until(lambda: "http://" in app.output, within_s=20)
        yield app
    finally:
        if app.launcher.poll() is None:
            app.launcher.terminate()
        wait_until(app.is_gone)


def send(app: App, sign: signal.Signals) -> None:
    """As a terminal does for Ctrl-C, to the launcher's whole process group."""
    if sign is signal.SIGINT:
        os.killpg(app.launcher.pid, sign)
    else:
        app.launcher.send_signal(sign)


def is_free(address: tuple[str, int]) -> bool:
    try:
        socket.create_server(address).close()
    except OSError:
        return False
    return True


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory, seeded: Path) -> Iterator[App]:
    """One running app for the tests that leave it as it was."""
    folder = tmp_path_factory.mktemp("kept") / "instance"
    folder.mkdir(mode=0o700)
    shutil.copy(seeded, folder / "shop.db")
    (folder / "workers").mkdir(mode=0o700)
    with running(folder) as app:
        yield app


@contextmanager
def open_page(app: App) -> Iterator[None]:
    """A page as a browser has it: a connection kept alive, and a websocket."""
    host, port = app.address
    page = HTTPConnection(host, port)
    page.request("GET", "/")
    page.getresponse().read()
    live = simple_websocket.Client(
        f"ws://{host}:{port}/ws/live?topics=vitals",
        headers={"Origin": f"http://{host}"},  # this client's Host has no port
    )
    yield
    live.sock.close()
    page.close()


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_an_open_page_does_not_keep_the_app_from_ending(
    instance: Path, sign: signal.Signals
) -> None:
    with running(instance) as app, open_page(app):
        address = app.address
        assert len(app.processes()) >= 6  # with worker, shoppers and two servers
        send(app, sign)
        wait_until(lambda: app.is_gone() and is_free(address))
    assert app.launcher.returncode == (-sign if sign is signal.SIGKILL else 0)


@pytest.mark.parametrize(
    "sign", [pytest.param(signal.SIGTERM, marks=pytest.mark.slow), signal.SIGKILL]
)
def test_durable_data_is_there_again_at_the_next_start(
    instance: Path, sign: signal.Signals
) -> None:
    with running(instance) as app:
        with app.redis("durable") as client:
            client.set("kept", "yesterday", px=60_000)
        send(app, sign)
        wait_until(app.is_gone)
    with running(instance) as again, again.redis("durable") as client:
        assert client.get("kept") == b"yesterday"


@pytest.mark.parametrize("role", ["cache", "durable"])
@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGSTOP])
def test_a_server_that_died_or_hangs_answers_again_soon(
    kept: App, role: str, sign: signal.Signals
) -> None:
    wait_until(lambda: kept.is_watched(role))
    before = kept.server_pid(role)
    assert before is not None
    os.kill(before, sign)
    # One that was started just now and was never heard of may take long to load.
    wait_until(lambda: kept.server_pid(role) not in (None, before), within_s=100)


def test_a_worker_that_was_killed_is_started_again_and_ends_with_the_app(
    instance: Path,
) -> None:
    fleet = Fleet(instance)
    assert (fleet.add(), fleet.add()) == ("worker-1", "worker-2")
    with running(instance) as app:
        wait_until(lambda: len(workers_of(app)) == 2, within_s=20)
        before = workers_of(app)
        os.kill(before["worker-2"], signal.SIGKILL)
        again = wait_until(lambda: another(app, before), within_s=20)
        assert again.keys() == {"worker-2"}
    assert workers_of(app) == {}


def another(app: App, before: dict[str, int]) -> dict[str, int]:
    """The workers that are other processes than before, once all are there."""
    now = workers_of(app)
    if now.keys() != before.keys():
        return {}
    return {name: pid for name, pid in now.items() if pid != before[name]}


def workers_of(app: App) -> dict[str, int]:
    """The process of each worker, by its name."""
    found = {}
    for pid in app.processes():
        with suppress(OSError):  # it ended meanwhile
            line = (Path("/proc") / str(pid) / "cmdline").read_bytes().split(b"\0")
            if b"worker" in line and b"--name" in line:
                found[line[line.index(b"--name") + 1].decode()] = pid
    return found


def test_a_long_script_is_not_taken_for_a_hang(kept: App) -> None:
    wait_until(lambda: kept.is_watched("durable"))
    before = kept.server_pid("durable")
    busy = (
        "local now = redis.call('TIME')[1] repeat until redis.call('TIME')[1] - now > 3"
    )
    with kept.redis("durable") as client:
        client.connection_pool.connection_kwargs["socket_timeout"] = 10
        client.eval(busy, 0)
    assert kept.server_pid("durable") == before


def test_a_start_beside_a_running_app_says_where_it_is_and_touches_nothing(
    kept: App,
) -> None:
    before = kept.processes()
    second = start(kept.instance)
    assert second.launcher.wait(10) == 1
    assert f"runs at http://127.0.0.1:{kept.address[1]}" in second.output
    wait_until(lambda: kept.processes() == before)
    assert kept.get("/healthz")[0] == 200


def test_a_taken_port_is_said_before_anything_starts(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        app = start(tmp_path, PORT=str(port))
        assert app.launcher.wait(10) == 1
    assert (
        app.output
        == f"Port {port} is taken. Choose another, for example PORT={port + 1}.\n"
    )
    assert not list(tmp_path.glob("*.log"))


def test_a_setting_that_cannot_be_used_is_one_line(tmp_path: Path) -> None:
    app = start(tmp_path, THREADS="many")
    assert app.launcher.wait(10) == 2
    assert app.output == "THREADS: a whole number from 4 to 4096, not 'many'\n"


def test_the_app_ends_with_its_web_server(instance: Path) -> None:
    with running(instance) as app:
        web = next(pid for pid in app.processes() if is_arbiter(pid, app))
        os.kill(web, signal.SIGKILL)
        wait_until(app.is_gone)
    assert app.launcher.returncode == 1


def is_arbiter(pid: int, app: App) -> bool:
    parent = (
        (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[1]
    )
    command = (Path("/proc") / str(pid) / "cmdline").read_bytes()
    return int(parent) == app.launcher.pid and b"gunicorn" in command


def test_filling_the_database_can_be_interrupted(tmp_path: Path) -> None:
    app = start(tmp_path / "instance")
    wait_until(lambda: "0 %" in app.output, within_s=20)
    send(app, signal.SIGTERM)
    wait_until(app.is_gone)
    assert "http://" not in app.output


def test_a_start_prints_a_link_that_makes_an_admin_once(instance: Path) -> None:
    with running(instance) as app:
        wait_until(lambda: "Admin, once:" in app.output)
        token = app.output.rpartition("token=")[2].strip()
        assert [_enter(app, token) for _ in range(2)] == [303, 401]
    with running(instance) as again:
        wait_until(lambda: "Admin, once:" in again.output)
        assert token not in again.output


def test_with_a_password_no_link_is_printed(instance: Path) -> None:
    with running(instance, ADMIN_PASSWORD="correct horse battery") as app:
        wait_until((instance / "vitals.json").exists)
        assert app.get("/admin/login")[0] == 200
        assert "token=" not in app.output
        assert not (instance / "admin_link").exists()


def _enter(app: App, token: str) -> int:
    connection = HTTPConnection(*app.address, timeout=30)
    try:
        connection.request(
            "POST",
            "/admin/login",
            body=f"token={token}",
            headers={"Content-Type": "application/x-www-form-urlencoded"},
        )
        return connection.getresponse().status
    finally:
        connection.close()


def test_without_a_server_program_the_app_says_so_and_works(instance: Path) -> None:
    with running(instance, "-c", _WITHOUT_SERVERS, WORKERS="2") as app:
        assert "limited mode" in app.output
        assert app.get("/")[0] == 200
        gunicorns = [pid for pid in app.processes() if is_gunicorn(pid)]
    assert len(gunicorns) == 2  # the arbiter and one worker


def is_gunicorn(pid: int) -> bool:
    return b"gunicorn" in (Path("/proc") / str(pid) / "cmdline").read_bytes()


def test_a_foreign_server_on_the_socket_is_left_alone(tmp_path: Path) -> None:
    binary = find_binary()
    assert binary is not None
    foreign, ours = (EmbeddedServer("cache", binary, tmp_path, tmp_path) for _ in "12")
    try:
        foreign.start()
        foreign.await_answer()
        with pytest.raises(ServerError, match="Another Redis server"):
            ours.start()
        assert foreign.ping()
    finally:
        foreign.kill()


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    binary = find_binary()
    assert binary is not None
    server = EmbeddedServer("cache", binary, tmp_path, tmp_path / "missing")
    server.start()
    with pytest.raises(ServerError, match="No such file or directory"):
        server.await_answer()


def test_a_folder_open_to_others_is_refused_for_sockets(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    with pytest.raises(ground.CannotStart):
        ground.make_private(tmp_path)


def test_a_child_that_ends_at_once_is_started_ever_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 100
    monkeypatch.setattr(process, "time", SimpleNamespace(monotonic=lambda: now))
    starts: list[int] = []
    child = process.Kept("It", lambda: starts.append(now), lambda: "ended")
    while now < 190:
        child.look_after()
        now += 1
    assert [later - sooner for sooner, later in pairwise(starts)] == [
        1,
        1,
        3,
        5,
        9,
        17,
        31,
    ]


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize("kind", ["sentinel", "cluster"])
@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGKILL])
def test_a_set_ends_with_the_app_and_a_lost_server_is_started_again(
    tmp_path: Path, seeded: Path, kind: str, sign: signal.Signals
) -> None:
    instance = tmp_path / "instance"
    instance.mkdir(mode=0o700)
    shutil.copy(seeded, instance / "shop.db")
    app = start(instance, *_SERVE, "--set", kind)
    try:
        wait_until(lambda: "Redis Patterns Live" in app.output, within_s=60)
        told = instance / "set.json"
        pids = msgspec.json.decode(told.read_bytes())["pids"]
        lost = next(iter(pids))
        os.kill(pids[lost], signal.SIGKILL)
        wait_until(lambda: _pid_of(told, lost) != pids[lost], within_s=60)
        wait_until(lambda: app.get("/readyz")[1].count('"up"') == 3, within_s=60)
        servers = msgspec.json.decode(told.read_bytes())["pids"].values()
        assert all(map(_is_alive, servers))
        app.launcher.send_signal(sign)
        wait_until(lambda: app.is_gone() and not any(map(_is_alive, servers)))
    finally:
        app.launcher.kill()
        app.launcher.wait()


def _pid_of(told: Path, address: str) -> int:
    pid: int = msgspec.json.decode(told.read_bytes())["pids"][address]
    return pid


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
