import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from random import Random

import pytest
from flask.testing import FlaskClient

from webapp.shop import shoppers
from webapp.shop.seed import FEATURED_IDS

ROOT = Path(__file__).parent.parent.parent


@dataclass
class Shop:
    """A web server that answers everything and remembers what it was asked."""

    port: int = 0
    status: int = 200
    answers: dict[str, int] = field(default_factory=dict)  # status by method
    asked: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    connections: set[tuple[str, int]] = field(default_factory=set)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def opened(shop: Shop) -> Iterator[Shop]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            shop.connections.add(self.client_address)
            shop.asked.append((self.command, self.path, dict(self.headers)))
            self.send_response(shop.answers.get(self.command, shop.status))
            if self.command == "POST":
                self.send_header("Set-Cookie", "sid=abc; HttpOnly; Path=/")
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        do_PATCH = do_POST = do_GET

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", shop.port), Handler)
    server.daemon_threads = True
    shop.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield shop
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def shop() -> Iterator[Shop]:
    with opened(Shop()) as shop:
        yield shop


def run_until(shop: Shop, done: Callable[[], bool], rate: int = 50) -> float:
    """Let them shop until it is done, ten seconds at most; returns the seconds."""
    started = time.monotonic()
    shoppers.run(
        shop.url, lambda: rate, lambda: done() or time.monotonic() > started + 10
    )
    assert done()
    return time.monotonic() - started


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


def test_the_rate_is_2_where_nobody_chose(tmp_path: Path) -> None:
    assert shoppers.read_rate(tmp_path) == 2


@pytest.mark.parametrize("rate", [0, 2, 50])
def test_a_chosen_rate_is_read_back(tmp_path: Path, rate: int) -> None:
    shoppers.write_rate(tmp_path, rate)
    assert shoppers.read_rate(tmp_path) == rate


@pytest.mark.parametrize("rate", [-1, 3, 1_000])
def test_other_rates_are_refused(tmp_path: Path, rate: int) -> None:
    with pytest.raises(ValueError, match="one of"):
        shoppers.write_rate(tmp_path, rate)


@pytest.mark.parametrize("content", ["", "fifty", "7", "50\n50", "\xff"])
def test_a_spoilt_file_means_the_default(tmp_path: Path, content: str) -> None:
    (tmp_path / "shoppers").write_bytes(content.encode("latin-1"))
    assert shoppers.read_rate(tmp_path) == 2


def test_requests_say_that_they_are_a_shoppers(shop: Shop) -> None:
    run_until(shop, lambda: len(shop.asked) >= 1)
    headers = shop.asked[0][2]
    assert headers["X-Shopper"] == "1"
    assert headers["Sec-Fetch-Site"] == "same-origin"


def test_all_requests_use_one_connection(shop: Shop) -> None:
    run_until(shop, lambda: len(shop.asked) >= 20)
    assert len(shop.connections) == 1


def test_50_a_second_are_50_a_second(shop: Shop) -> None:
    took_s = run_until(shop, lambda: len(shop.asked) >= 51)
    assert 0.9 < took_s < 4


def test_2_a_second_are_2_a_second(shop: Shop) -> None:
    took_s = run_until(shop, lambda: len(shop.asked) >= 4, rate=2)
    assert 1.4 < took_s < 6  # a busy machine may be late and not early


def test_rate_0_sends_nothing(shop: Shop) -> None:
    rounds = iter(range(5))
    run_until(shop, lambda: next(rounds, None) is None, rate=0)
    assert shop.asked == []


def test_a_new_rate_is_noticed_within_a_second(shop: Shop) -> None:
    rates = iter([0])
    ends = time.monotonic() + 20
    shoppers.run(
        shop.url,
        lambda: next(rates, 50),
        lambda: bool(shop.asked) or time.monotonic() > ends,
    )
    assert shop.asked


def test_an_app_that_comes_back_is_found_again() -> None:
    shop = Shop()
    with opened(shop):
        pass
    stopped = threading.Event()
    thread = threading.Thread(
        target=shoppers.run, args=(shop.url, lambda: 50, stopped.is_set)
    )
    thread.start()
    try:
        with opened(shop):
            deadline = time.monotonic() + 20
            while not shop.asked and time.monotonic() < deadline:
                time.sleep(0.02)
            assert shop.asked
            stopped.set()
            thread.join()
    finally:
        stopped.set()
        thread.join()


@pytest.mark.parametrize("away", [True, False], ids=["refuses", "answers 503"])
def test_an_app_that_is_away_is_tried_ever_more_seldom(
    away: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = []
    visit = shoppers.Shopper.visit
    monkeypatch.setattr(
        shoppers.Shopper,
        "visit",
        lambda self: tries.append(time.monotonic()) or visit(self),
    )
    with opened(Shop(status=503)) as shop:
        target = Shop(port=free_port()) if away else shop
        run_until(target, lambda: len(tries) >= 3)
    assert tries[1] - tries[0] >= 0.25
    assert tries[2] - tries[1] >= 0.5


def test_few_products_are_wanted_much_and_many_rarely() -> None:
    rng = Random(1)
    paths = Counter(shoppers.choose(rng)[1] for _ in range(20_000))
    wanted = [n for path, n in paths.most_common() if "?" not in path]
    assert sum(wanted[:20]) > 0.5 * sum(wanted)
    assert len(wanted) > 300


def test_the_featured_products_are_left_to_the_newcomer() -> None:
    rng = Random(1)
    asked = {shoppers.choose(rng)[1] for _ in range(20_000)}
    assert not asked & {f"/api/products/{id}" for id in FEATURED_IDS}


def test_one_request_in_50_edits_the_stock_and_one_adds_points() -> None:
    rng = Random(1)
    requests = [shoppers.choose(rng) for _ in range(20_000)]
    edits = [body for method, _, body in requests if method == "PATCH"]
    assert 330 < len(edits) < 470
    assert all(body and body.startswith('{"stock": ') for body in edits)
    scores = [(path, body) for method, path, body in requests if method == "POST"]
    assert 330 < len(scores) < 470
    assert len(set(scores)) == len(scores)  # an operation id is never used again


def test_the_points_are_taken_by_the_board_of_the_week(client: FlaskClient) -> None:
    rng = Random(1)
    asked = (shoppers.choose(rng) for _ in range(1000))
    path, body = next((path, body) for method, path, body in asked if method == "POST")
    answer = client.post(path, data=body, content_type="application/json")
    assert answer.status_code == 200


@pytest.fixture
def edits_only(monkeypatch: pytest.MonkeyPatch) -> None:
    edit = "PATCH", "/api/products/2000", '{"stock": 1}'
    monkeypatch.setattr(shoppers, "choose", lambda rng: edit)


def test_a_shopper_signs_in_once_and_edits_as_a_guest(
    shop: Shop, edits_only: None
) -> None:
    run_until(shop, lambda: len(shop.asked) >= 4)
    methods = [method for method, _, _ in shop.asked]
    assert methods[:4] == ["POST", "PATCH", "PATCH", "PATCH"]
    assert shop.asked[0][1] == "/api/session/guest"
    assert all(headers["Cookie"] == "sid=abc" for _, _, headers in shop.asked[1:])


def test_a_shopper_whose_session_ended_signs_in_again(edits_only: None) -> None:
    with opened(Shop(answers={"PATCH": 401})) as shop:
        run_until(shop, lambda: len(shop.asked) >= 4)
    methods = [method for method, _, _ in shop.asked]
    assert methods[:4] == ["POST", "PATCH", "POST", "PATCH"]


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
def test_the_process_ends_at_once_when_told_to(
    shop: Shop, tmp_path: Path, sign: signal.Signals
) -> None:
    environ = os.environ | {
        "INSTANCE_PATH": str(tmp_path),
        "HOST": "127.0.0.1",
        "PORT": str(shop.port),
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "webapp.shop.shoppers"], cwd=ROOT, env=environ
    )
    try:
        deadline = time.monotonic() + 20
        while not shop.asked and time.monotonic() < deadline:
            time.sleep(0.02)
        assert shop.asked
        process.send_signal(sign)
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.wait()
