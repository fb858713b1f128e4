"""The websocket, under the web server's real settings and a small app.

The app's fragment is as many characters long as the vitals say clients are, so that
a test can choose the size of a message.
"""

import base64
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import msgspec
import pytest
from simple_websocket import Client, ConnectionClosed

from tests.conftest import ROOT, free_port, wait_until
from webapp.live import vitals
from webapp.live.feed import Feed
from webapp.live.hub import Hub
from webapp.live.outbox import Outbox
from webapp.live.vitals import VitalsNow
from webapp.settings import from_environ

pytestmark = pytest.mark.server

THREADS = 8
PLACES = THREADS // 2
HANDSHAKE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": base64.b64encode(bytes(16)).decode(),
}
APP = """
from flask import Flask
from webapp.live import sockets
from webapp.live.feed import Feed
from webapp.live.hub import Hub
from webapp.settings import from_environ

def make_app():
    app = Flask("small")
    hub = Hub(from_environ(), render=lambda now: "x" * now.clients,
              feed=Feed(from_environ(), render=lambda rows: ""))
    app.extensions["hub"] = hub
    sockets.init_app(app, hub)
    app.add_url_rule("/idle", "idle", view_func=lambda: str(not hub._running))
    app.add_url_rule("/taken", "taken", view_func=lambda: str(len(hub._outboxes)))
    return app
"""


class Page(Client):
    def handshake(self) -> None:
        """The library's own leaves a message that came with the 101 for later."""
        super().handshake()
        self._handle_events()


@dataclass
class Small:
    """The small app, and the file that it watches."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes]
    pages: list[Page] = field(default_factory=list)

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def tell(self, length: int | None = 8) -> None:
        """New vitals, with a fragment of this length; None: one that fails."""
        now = VitalsNow(at=datetime.now(UTC), clients=length)
        draft = self.folder / "draft"
        draft.write_bytes(msgspec.json.encode(now))
        draft.replace(self.folder / vitals.FILE)

    def open_page(self) -> Page:
        url = f"ws://127.0.0.1:{self.port}/ws/live?topics=vitals"
        origin = "http://127.0.0.1"  # this client leaves the port out of Host
        page = Page.connect(url, headers={"Origin": origin})
        self.pages.append(page)
        return page

    def open_raw_page(self) -> socket.socket:
        """A page with a small buffer that reads nothing after its handshake."""
        page = socket.socket()
        page.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        page.connect(("127.0.0.1", self.port))
        headers = HANDSHAKE | {"Host": f"127.0.0.1:{self.port}", "Origin": self.origin}
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        request = f"GET /ws/live?topics=vitals HTTP/1.1\r\n{lines}\r\n"
        page.sendall(request.encode())
        assert page.recv(12) == b"HTTP/1.1 101"
        return page

    def ask(
        self, method: str = "GET", topics: str = "vitals", **headers: str
    ) -> tuple[HTTPConnection, int]:
        """A handshake by hand and its status; "" leaves a header out."""
        asked = HANDSHAKE | {"Origin": self.origin}
        asked |= {name.replace("_", "-"): value for name, value in headers.items()}
        given = {name: value for name, value in asked.items() if value}
        connection = HTTPConnection("127.0.0.1", self.port, timeout=5)
        connection.request(method, f"/ws/live?topics={topics}", headers=given)
        return connection, connection.getresponse().status

    def status(self, **asked: str) -> int:
        connection, status = self.ask(**asked)
        connection.close()
        return status

    def taken(self) -> int:
        """How many sockets hold a place."""
        return int(self.get("/taken"))

    def get(self, path: str) -> bytes:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=1)
        with closing(connection):
            connection.request("GET", path)
            return connection.getresponse().read()

    def is_alive(self) -> bool:
        with suppress(OSError):
            return self.get("/taken") == b"0"
        return False

    def log(self) -> str:
        return (self.folder / "log").read_text()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Small]:
    with started(tmp_path_factory.mktemp("small")) as small:
        yield small


@pytest.fixture
def small(running: Small) -> Iterator[Small]:
    """The app, with all places free, new vitals and nothing in its log."""
    wait_until(lambda: running.get("/idle") == b"True")
    os.truncate(running.folder / "log", 0)
    running.tell()
    yield running
    for page in running.pages:
        with suppress(ConnectionClosed):
            page.close()
    running.pages.clear()


@contextmanager
def started(folder: Path) -> Iterator[Small]:
    (folder / "small.py").write_text(APP)
    port = free_port()
    environ = os.environ | {
        "INSTANCE_PATH": str(folder),
        "PORT": str(port),
        "THREADS": str(THREADS),
        "PYTHONPATH": f"{folder}:{ROOT}",
    }
    config = "python:webapp.http.gunicorn"
    command = [sys.executable, "-m", "gunicorn", "-c", config, "small:make_app()"]
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(command, cwd=ROOT, env=environ, stderr=log)
    small = Small(folder, port, process)
    try:
        wait_until(small.is_alive, within_s=10)
        yield small
    finally:
        process.terminate()
        process.wait(5)


def received(page: Page, timeout_s: float = 2.0) -> Any:
    text = page.receive(timeout=timeout_s)
    assert text is not None, "no message in time"
    return msgspec.json.decode(text)


def close_code(page: Page, within_s: float = 2.0) -> int:
    """How the server closed the socket, past whatever it had sent before."""
    deadline = time.monotonic() + within_s
    try:
        while time.monotonic() < deadline:
            page.receive(timeout=0.1)
    except ConnectionClosed as closed:
        return int(closed.reason)
    raise AssertionError("still open")


def frames(page: socket.socket) -> list[tuple[int, bytes]]:
    """Opcode and payload of all that the server still sends, until it ends."""
    page.settimeout(5)
    with page:
        data = b"".join(iter(lambda: page.recv(65536), b""))
    rest = data.partition(b"\r\n\r\n")[2]
    found = []
    while rest:
        opcode, length, head = rest[0] & 15, rest[1], 2
        if length > 125:
            head = 4 if length == 126 else 10
            length = int.from_bytes(rest[2:head])
        found.append((opcode, rest[head : head + length]))
        rest = rest[head + length :]
    return found


def test_a_full_outbox_drops_its_oldest_message():
    outbox = Outbox({"vitals"})
    for number in range(260):
        outbox.put(b"%d" % number)
    assert (outbox.dropped, outbox.get(timeout_s=0)) == (4, b"4")


def test_closing_waits_for_no_lock_and_lets_nobody_in(tmp_path: Path):
    settings = from_environ({"INSTANCE_PATH": str(tmp_path)})
    feed = Feed(settings, render=lambda rows: "")
    hub = Hub(settings, render=lambda now: "", feed=feed)
    outbox = hub.admit({"vitals"})
    assert outbox is not None
    with hub._lock:  # as where a signal interrupts the code that holds it
        hub.close()
    wait_until(lambda: outbox.closed)
    assert hub.admit({"vitals"}) is None
    hub.leave(outbox)


def test_a_page_gets_the_newest_vitals_at_once(small: Small):
    message = received(small.open_page())
    assert message["topic"] == "vitals"
    assert message["id"]
    assert message["data"]["clients"] == 8
    assert message["html"] == "x" * 8


def test_a_later_page_gets_them_at_once_too(small: Small):
    received(small.open_page())
    assert received(small.open_page(), timeout_s=0.2)["html"] == "x" * 8


def test_every_page_gets_each_message_once(small: Small):
    pages = [small.open_page() for _ in range(3)]
    for page in pages:
        received(page)
    small.tell(9)
    assert [received(page)["html"] for page in pages] == ["x" * 9] * 3
    assert [page.receive(timeout=0.3) for page in pages] == [None] * 3


def test_numbers_come_even_when_the_fragment_cannot_be_made(small: Small):
    page = small.open_page()
    received(page)
    small.tell(None)
    message = received(page)
    assert message["data"]["clients"] is None
    assert "html" not in message
    assert small.log().count("Traceback") == 1


@pytest.mark.parametrize(
    "origin",
    [
        "",
        "null",
        "http://evil.example",
        "http://127.0.0.1",
        "http://127.0.0.1:1",
        "https://127.0.0.1:{port}",
        "http://127.0.0.1:{port}.evil.example",
        "http://evil.example/http://127.0.0.1:{port}",
    ],
)
def test_pages_of_others_are_refused_before_the_upgrade(small: Small, origin: str):
    assert small.status(Origin=origin.format(port=small.port)) == 403


@pytest.mark.parametrize("topics", ["", "nothing", "vitals,nothing", "vitals,"])
def test_unknown_topics_are_refused_before_the_upgrade(small: Small, topics: str):
    assert small.status(topics=topics) == 400


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        ({"Upgrade": "", "Connection": "close"}, 400),
        ({"Upgrade": "h2c"}, 400),
        ({"Sec_WebSocket_Version": "12"}, 426),
        ({"Sec_WebSocket_Version": ""}, 426),
        ({"Sec_WebSocket_Key": ""}, 400),
        ({"Sec_WebSocket_Key": "short"}, 400),
        ({"Sec_WebSocket_Key": "@" * 24}, 400),
        ({"method": "HEAD"}, 400),
    ],
)
def test_a_bad_handshake_is_the_clients_fault(
    small: Small, asked: dict[str, str], status: int
):
    assert small.status(**asked) == status


@pytest.mark.parametrize(
    "asked",
    [
        {"Sec_WebSocket_Extensions": "permessage-deflate; client_max_window_bits=abc"},
        {"Sec_WebSocket_Protocol": ",,;\x7f"},
        {"X_Odd": "\x0b\x7f\xff"},
        {"X_Long": "x" * 8000},
    ],
)
def test_odd_headers_do_not_reach_the_library(small: Small, asked: dict[str, str]):
    assert small.status(**asked) in (101, 400)  # 400 by the web server itself
    assert "Traceback" not in small.log()


def test_half_the_threads_stay_free_of_sockets(small: Small):
    pages = [small.open_page() for _ in range(PLACES)]
    assert small.status() == 503
    assert small.taken() == PLACES  # which is told over plain HTTP
    pages[0].close()
    wait_until(lambda: small.status() == 101)


def test_the_end_of_the_app_closes_sockets_with_1001_at_once(tmp_path: Path):
    with started(tmp_path) as small:
        small.tell()
        pages = [small.open_page() for _ in range(3)]
        for page in pages:
            received(page)
        began = time.monotonic()
        small.process.terminate()
        assert [close_code(page) for page in pages] == [1001] * 3
        assert time.monotonic() - began < 0.5
        small.process.wait(2)


def test_a_flood_is_closed_with_1008_and_leaves_others_alone(small: Small):
    other, flood = small.open_page(), small.open_page()
    received(other)
    with suppress(OSError, ConnectionClosed):  # as soon as it is closed
        for _ in range(50_000):
            flood.send("x" * 100)
    assert close_code(flood) == 1008
    small.tell(3)
    assert received(other)["html"] == "xxx"


def test_a_message_over_16_kb_is_closed_with_1009(small: Small):
    page = small.open_page()
    page.send("x" * 20_000)
    assert close_code(page) == 1009


def test_what_a_page_says_is_ignored(small: Small):
    page = small.open_page()
    received(page)
    page.send("hello")
    small.tell(5)
    assert received(page)["html"] == "xxxxx"


def test_a_page_that_does_not_read_is_let_go_and_delays_nobody(small: Small):
    other, dead = small.open_page(), small.open_raw_page()
    received(other)
    slowest_s, length = 0.0, 60_000
    deadline = time.monotonic() + 12
    while small.taken() == 2:
        assert time.monotonic() < deadline, "the dead page still holds its place"
        length += 1
        began = time.monotonic()
        small.tell(length)
        assert len(received(other)["html"]) == length
        slowest_s = max(slowest_s, time.monotonic() - began)
    assert slowest_s < 0.6
    opcode, payload = frames(dead)[-1]
    assert (opcode, payload[:2]) == (8, (1013).to_bytes(2))
    assert small.log() == ""


def test_ordinary_ends_leave_no_trace_in_the_log(small: Small):
    closed, cut = small.open_page(), small.open_raw_page()
    received(closed)
    closed.close()
    reset_at_once = b"\1\0\0\0\0\0\0\0"
    cut.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset_at_once)
    cut.close()
    small.tell(1)
    wait_until(lambda: small.taken() == 0)
    assert small.log() == ""


def test_random_frames_end_the_socket_and_nothing_else(small: Small):
    for _ in range(20):
        page = small.open_raw_page()
        page.sendall(b"\xff" + secrets.token_bytes(500))  # reserved bits are set
        opcode, payload = frames(page)[-1]
        assert (opcode, payload[:2]) == (8, (1002).to_bytes(2))
    wait_until(lambda: small.taken() == 0)
    assert small.log() == ""
