"""SIGTERM while pages are open and requests are under way: H11."""

import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, contextmanager
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path

import pytest
from simple_websocket import Client, ConnectionClosed

from tests.conftest import Served, served
from tests.server.test_launcher import running

pytestmark = pytest.mark.server

_BEGUN = 20  # requests that wait for their end to come
_ASKING = 4  # visitors who ask again and again
_ASKED = "/api/visitors"
_EXIT_S = 5.0


@contextmanager
def launched(instance: Path, redis_url: str) -> Iterator[Served]:
    """The whole app: its end begins with the launcher's."""
    with running(instance, REDIS_URL=redis_url, DEMO="1") as app:
        yield Served(app.address[1], app.launcher, environ={})


@pytest.mark.timeout(600)
@pytest.mark.parametrize("serve", [served, launched])
@pytest.mark.parametrize(
    ("sockets", "rounds", "more_s"),
    [(20, 1, 0.0), pytest.param(200, 10, 2.0, marks=pytest.mark.slow)],
)
def test_the_end_says_goodbye_to_pages_and_answers_what_was_asked(
    instance: Path,
    redis_url: str,
    monkeypatch: pytest.MonkeyPatch,
    serve: Callable[[Path, str], AbstractContextManager[Served]],
    sockets: int,
    rounds: int,
    more_s: float,
) -> None:
    """H11 with 20 sockets once; with 200 sockets, 10 times, and in 5 s when slow.

    Then the requests under way take 2 s more, too.
    """
    monkeypatch.setenv("THREADS", str(2 * sockets + 2 * _BEGUN))
    took_s = []
    for _ in range(rounds):
        with serve(instance, redis_url) as app:
            took_s.append(end(app, sockets, more_s))
    print(f"{sockets} sockets: ended in", [f"{seconds:.1f} s" for seconds in took_s])
    if rounds > 1:
        assert max(took_s) <= _EXIT_S


def end(app: Served, sockets: int, more_s: float) -> float:
    """The seconds from SIGTERM to the exit."""
    with ThreadPoolExecutor(_ASKING) as pool:
        pages = [open_page(app) for _ in range(sockets)]
        requests = [begin(app) for _ in range(_BEGUN)]
        kept = [keep(app) for _ in range(_ASKING)]
        asking = [pool.submit(ask_until_told_to_leave, one) for one in kept]
        began = time.monotonic()
        app.process.terminate()
        assert [close_code(page) for page in pages] == [1001] * sockets
        time.sleep(more_s)
        assert [status_of(request) for request in requests] == [200] * _BEGUN
        assert {status for one in asking for status in one.result()} == {200}
        assert app.process.wait(20) == 0
        return time.monotonic() - began


def open_page(app: Served) -> Client:
    url = f"ws://127.0.0.1:{app.port}/ws/live?topics=vitals,feed"
    return Client.connect(url, headers={"Origin": "http://127.0.0.1"})


def close_code(page: Client) -> int:
    with closing(page.sock):
        try:
            while page.receive(timeout=20) is not None:
                continue
        except ConnectionClosed as closed:
            return int(closed.reason)
    raise AssertionError("still open")


def begin(app: Served) -> socket.socket:
    """A request that a thread of the server has, and whose body is to come."""
    request = socket.create_connection(("127.0.0.1", app.port), timeout=20)
    head = (
        "POST /api/categories/kitchen/invalidate HTTP/1.1",
        f"Host: 127.0.0.1:{app.port}",
        "Sec-Fetch-Site: same-origin",
        "Content-Type: application/json",
        "Content-Length: 2",
        "Expect: 100-continue",
    )
    request.sendall("\r\n".join((*head, "\r\n")).encode())
    assert request.recv(4096).startswith(b"HTTP/1.1 100 ")
    return request


def status_of(request: socket.socket) -> int:
    """The answer to the whole request."""
    with request, HTTPResponse(request) as answer:
        request.sendall(b"{}")
        answer.begin()
        assert answer.read().endswith(b"}")
        return answer.status


def keep(app: Served) -> HTTPConnection:
    """A connection that the server has answered on, and keeps."""
    connection = HTTPConnection("127.0.0.1", app.port, timeout=20)
    connection.request("GET", _ASKED)
    assert connection.getresponse().read()
    return connection


def ask_until_told_to_leave(connection: HTTPConnection) -> set[int]:
    """One request after the other: the statuses."""
    statuses = set()
    with closing(connection):
        leaving = False
        while not leaving:
            connection.request("GET", _ASKED)
            answer = connection.getresponse()
            leaving = answer.will_close
            answer.read()
            statuses.add(answer.status)
    return statuses
