"""The websocket, under the web server's real settings and a small app.

The app's fragment is as many characters long as the vitals say clients are, so that
a test can choose the size of a message.
"""

import base64
import os
import socket
import subprocess
import sys
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.client import HTTPConnection
from pathlib import Path
from random import Random
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

sockets._SEND_WITHIN_S = 4.0  # a test waits for it

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

    def open_page(self, cookie: str = "") -> Page:
        url = f"ws://127.0.0.1:{self.port}/ws/live?topics=vitals"
        origin = "http://127.0.0.1"  # this client leaves the port out of Host
        page = Page.connect(url, headers={"Origin": origin, "Cookie": cookie})
        self.pages.append(page)
        return page

    def open_raw_page(self, **headers: str) -> socket.socket:
        """A page with a small buffer that reads nothing after its handshake."""
        page = self.connect()
        page.sendall(self.handshake(**headers))
        assert page.recv(12) == b"HTTP/1.1 101"
        return page

    def connect(self) -> socket.socket:
        page = socket.socket()
        page.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        page.connect(("127.0.0.1", self.port))
        return page

    def handshake(self, **more: str) -> bytes:
        headers = HANDSHAKE | {"Host": f"127.0.0.1:{self.port}", "Origin": self.origin}
        headers |= {name.replace("_", "-"): value for name, value in more.items()}
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return f"GET /ws/live?topics=vitals HTTP/1.1\r\n{lines}\r\n".encode()

    def footprint(self) -> tuple[int, int, int]:
        """Threads, open files and resident kilobytes of its worker."""
        own = self.process.pid
        worker = Path(f"/proc/{own}/task/{own}/children").read_text().split()[0]
        status = Path(f"/proc/{worker}/status").read_text()
        threads, resident = (
            int(status.partition(f"{name}:")[2].split()[0])
            for name in ("Threads", "VmRSS")
        )
        return threads, len(list(Path(f"/proc/{worker}/fd").iterdir())), resident

    def ask(
        self, method: str = "GET", topics: str = "vitals", **headers: str
    ) -> tuple[HTTPConnection, int]:
        """A handshake by hand and its status; "" leaves a header out."""
        asked = HANDSHAKE | {"Origin": self.origin}
        asked |= {name.replace("_", "-"): value for name, value in headers.items()}
        given = {name: value for name, value in asked.items() if value}
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
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
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
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
    page.settimeout(30)
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
    assert received(small.open_page(), timeout_s=2)["html"] == "x" * 8


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
    """H1 in full; test_guard asks it of every websocket that the app has."""
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
    """H2: the list of probes."""
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


@pytest.mark.timeout(300)
@pytest.mark.parametrize("count", [100, pytest.param(2000, marks=pytest.mark.slow)])
def test_no_spoilt_handshake_is_the_servers_fault(small: Small, count: int):
    """H2 with 100 mutations; all 2,000 in `make test-all`."""
    whole, statuses = small.handshake(), Counter[bytes]()
    for seed in range(count):
        with small.connect() as page, suppress(ConnectionError):
            page.settimeout(30)
            page.sendall(spoilt(whole, Random(seed)))
            page.shutdown(socket.SHUT_WR)
            statuses[page.recv(12)[9:]] += 1
    assert {s[:1] for s in statuses} <= {b"", b"1", b"2", b"4", b"5"}
    assert {s for s in statuses if s[:1] == b"5"} <= {b"501", b"503", b"505"}
    assert statuses[b"400"] > count // 10  # else this proves little
    wait_until(lambda: small.taken() == 0)
    assert "Traceback" not in small.log()
    received(small.open_page())


def spoilt(request: bytes, random: Random) -> bytes:
    """The request with up to three bytes, words or lines of it changed."""
    lines = request.split(b"\r\n")
    for _ in range(random.randint(1, 3)):
        line = random.randrange(len(lines))
        at = random.randint(0, len(lines[line]))
        head, tail = lines[line][:at], lines[line][at:]
        match random.randrange(5):
            case 0:
                lines[line] = head + random.randbytes(random.randint(1, 8)) + tail
            case 1:
                lines[line] = head + random.choice(ODDITIES) + tail
            case 2:
                lines[line] = head + tail[random.randint(1, 9) :]
            case 3:
                lines.insert(line, random.choice(lines))
            case _:
                name, colon, _ = lines[line].partition(b": ")
                lines[line] = name + colon + random.choice(ODDITIES)
    return b"\r\n".join(lines)


ODDITIES = [
    b"", b"\0", b"\n", b"\r", b"\r\n", b"\r\n\r\n", b": ", b",", b";", b"\xff", b"%",
    b"websocket", b"Upgrade", b"13", b"-1", b"9" * 30, b"x" * 9000, b"chunked",
    b"Content-Length: 9\r\n", b"Transfer-Encoding: chunked\r\n",
    b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits=abc\r\n",
]  # fmt: skip


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
        small.process.terminate()
        assert [close_code(page) for page in pages] == [1001] * 3
        small.process.wait(20)


def test_a_flood_is_closed_with_1008_and_leaves_others_alone(small: Small):
    other, flood = small.open_page(), small.open_page()
    received(other)
    with suppress(OSError, ConnectionClosed):  # as soon as it is closed
        for _ in range(50_000):
            flood.send("x" * 100)
    assert close_code(flood) == 1008
    small.tell(3)
    assert received(other)["html"] == "xxx"


def sent(opcode: int, payload: bytes = b"", *, length: int | None = None) -> bytes:
    """A frame as a page sends it; its length may be a lie."""
    length = len(payload) if length is None else length
    if length < 126:
        head = bytes([opcode, 128 + length])
    elif length < 2**16:
        head = bytes([opcode, 128 + 126]) + length.to_bytes(2)
    else:
        head = bytes([opcode, 128 + 127]) + length.to_bytes(8)
    return head + bytes(4) + payload  # a mask of zeros changes nothing


_PACKED = zlib.compressobj(wbits=-15)
BOMB = _PACKED.compress(bytes(50_000_000)) + _PACKED.flush()  # 48 KB
TOO_LARGE = {
    "one frame": (sent(0x81, b"x" * 20_000), {1009}),
    "a claim of 50 MB": (sent(0x82, b"x" * 20_000, length=50_000_000), {1009}),
    "fragments": (sent(0x01, b"x" * 9000) + sent(0x80, b"x" * 9000), {1009}),
    "a bomb": (sent(0xC1, BOMB), {1002, 1009}),  # 1002: nobody agreed to deflate
}
MALFORMED = {
    "no mask": (b"\x81\x05hello", {1002}),
    "a reserved bit": (sent(0xA1, b"hello"), {1002}),
    "an unknown opcode": (sent(0x83, b"hello"), {1002}),
    "a length of 2^63": (sent(0x82, length=2**63), {1002, 1009}),
    "a long form of a short length": (b"\x81\xfe\0\5\0\0\0\0hello", {1002}),
    "no UTF-8": (sent(0x81, b"\xff\xfe"), {1007}),
    "a surrogate": (sent(0x81, b"\xed\xa0\x80"), {1007}),
    "a split control frame": (sent(0x09, b"ping"), {1002}),
    "a long control frame": (sent(0x89, b"x" * 126), {1002}),
    "an end without a start": (sent(0x80, b"hello"), {1002}),
    "a close of one byte": (sent(0x88, b"\x03"), {1002}),
    "a close without sense": (sent(0x88, b"\0\0"), {1002}),
    "a cut frame": (sent(0x81, b"hello")[:-2], {1000, None}),
}


def answer_to(small: Small, data: bytes) -> int | None:
    """The code that closed the socket after this; None: closed without words."""
    page = small.open_raw_page(Sec_WebSocket_Extensions="permessage-deflate")
    with suppress(ConnectionError):
        page.sendall(data)
        page.shutdown(socket.SHUT_WR)
    said = frames(page)
    if said and said[-1][0] == 8:
        return int.from_bytes(said[-1][1][:2]) or 1000
    return None


def answers_and_leaves_nothing(
    small: Small, cases: dict[str, tuple[bytes, set[int | None]]], count: int
) -> None:
    """Each case in turn, `count` in all; the worker is then as it was before."""
    for data, _ in cases.values():
        answer_to(small, data)  # what is loaded once is no leak
    wait_until(lambda: small.get("/idle") == b"True")
    threads, files, resident = small.footprint()
    for n in range(count):
        name, (data, codes) = list(cases.items())[n % len(cases)]
        assert answer_to(small, data) in codes, name
    wait_until(lambda: small.get("/idle") == b"True", within_s=10)
    now = small.footprint()
    assert abs(now[0] - threads) <= 5
    assert abs(now[1] - files) <= 5
    assert now[2] - resident <= 20 * 1024
    assert small.log() == ""


@pytest.mark.timeout(300)
@pytest.mark.parametrize("count", [40, pytest.param(1000, marks=pytest.mark.slow)])
def test_a_message_over_16_kb_is_closed_with_1009(small: Small, count: int):
    """H4 with 40 sockets; all 1,000 in `make test-all`. Deflate is never agreed to."""
    answers_and_leaves_nothing(small, TOO_LARGE, count)


def test_deflate_is_not_agreed_to(small: Small):
    """H4."""
    page = small.connect()
    with page:
        page.sendall(small.handshake(Sec_WebSocket_Extensions="permessage-deflate"))
        page.settimeout(30)
        assert b"extensions" not in page.recv(4096).partition(b"\r\n\r\n")[0].lower()


@pytest.mark.timeout(600)
@pytest.mark.parametrize("count", [52, pytest.param(10_000, marks=pytest.mark.slow)])
def test_a_malformed_frame_ends_its_socket_and_nothing_else(small: Small, count: int):
    """H3 with 52 sockets; all 10,000 in `make test-all`."""
    answers_and_leaves_nothing(small, MALFORMED, count)


def test_a_socket_belongs_to_no_session(small: Small):
    """G5: it says what anybody is told, so a session's end has no socket to close."""
    told = [received(small.open_page()), received(small.open_page(f"sid={'a' * 43}"))]
    assert told[0] == told[1]


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
    deadline = time.monotonic() + 40
    while small.taken() == 2:
        assert time.monotonic() < deadline, "the dead page still holds its place"
        length += 1
        began = time.monotonic()
        small.tell(length)
        assert len(received(other)["html"]) == length
        slowest_s = max(slowest_s, time.monotonic() - began)
    assert slowest_s < 3  # one thread for all would have waited for 4
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
