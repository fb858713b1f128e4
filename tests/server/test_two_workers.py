"""Two workers, two browsers: whoever answers, they agree.

One worker at a time is stopped, so it is known which one answers.
"""

import json
import os
import signal
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Served, new_instance, served, wait_until

pytestmark = pytest.mark.server


class Browser:
    """Its cookies, and a new connection for each request."""

    def __init__(self, app: Served) -> None:
        self.app = app
        self.cookies: dict[str, str] = {}

    def ask(self, method: str, path: str, body: Any = None) -> str:
        headers = {"Sec-Fetch-Site": "same-origin", "Content-Type": "application/json"}
        if self.cookies:
            headers["Cookie"] = "; ".join(f"{n}={v}" for n, v in self.cookies.items())
        data = None if body is None else json.dumps(body).encode()
        asked = urllib.request.Request(self.app.url + path, data, headers)
        asked.method = method
        with urllib.request.urlopen(asked, timeout=30) as answer:
            for line in answer.headers.get_all("Set-Cookie") or ():
                for name, cookie in SimpleCookie(line).items():
                    self.cookies[name] = cookie.value
            text: str = answer.read().decode()
        return text

    def json(self, method: str, path: str, body: Any = None) -> Any:
        return json.loads(self.ask(method, path, body))


@dataclass
class Two:
    app: Served
    workers: list[int]  # process ids

    @contextmanager
    def only(self, number: int) -> Iterator[None]:
        """The other worker is stopped meanwhile."""
        other = self.workers[1 - number]
        os.kill(other, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(other, signal.SIGCONT)

    def from_both(self, browser: Browser, path: str) -> list[Any]:
        """What each worker answers."""
        answers = []
        for number in (0, 1):
            with self.only(number):
                answers.append(browser.json("GET", path))
        return answers


@pytest.fixture(scope="module")
def two(
    tmp_path_factory: pytest.TempPathFactory, seeded: Path, kept_redis_url: str
) -> Iterator[Two]:
    instance = new_instance(tmp_path_factory.mktemp("two") / "instance", seeded)
    with served(instance, kept_redis_url, workers=2) as app:
        pid = app.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children")
        found = wait_until(lambda: len(children.read_text().split()) == 2)
        assert found
        two = Two(app, [int(pid) for pid in children.read_text().split()])
        for number in (0, 1):
            with two.only(number):  # it has started when it answers
                Browser(app).ask("GET", "/healthz")
        yield two


def test_a_session_is_the_same_at_both_and_ends_at_both(two: Two) -> None:
    first, second = Browser(two.app), Browser(two.app)
    with two.only(0):
        own = first.json("POST", "/api/session/guest")
        other = second.json("POST", "/api/session/guest")
    assert two.from_both(first, "/api/session") == [own, own]
    with two.only(1):
        kept = dict(first.cookies)
        first.ask("DELETE", "/api/session")
    first.cookies = kept  # of a browser that did not hear of it
    assert two.from_both(first, "/api/session") == [{"user": None}] * 2
    assert two.from_both(second, "/api/session") == [other, other]


def test_a_limit_counts_both(two: Two) -> None:
    browser = Browser(two.app)
    for algorithm in ("fixed-window", "sliding-window-log"):
        for number in (0, 1, 0):
            with two.only(number):
                said = browser.json("GET", f"/api/throttled/{algorithm}")
        assert said["remaining"] == 97


def test_a_board_has_the_points_that_both_took(two: Two) -> None:
    first, second = Browser(two.app), Browser(two.app)
    page = first.ask("GET", "/leaderboard")
    week = page.partition('name="board" value="')[2].partition('"')[0]
    for number, browser in enumerate((first, second)):
        with two.only(number):
            for n in range(5):
                score = {"player": "ada", "points": 10, "operation_id": f"{number}-{n}"}
                browser.ask("POST", f"/api/leaderboard/{week}/scores", score)
    ada = {"player": "ada", "score": 100, "rank": 1}
    answers = two.from_both(second, f"/api/leaderboard/{week}/players/ada")
    assert [{name: told[name] for name in ada} for told in answers] == [ada, ada]


def test_visitors_and_requests_are_counted_once_for_both(two: Two) -> None:
    before = _visitors(two)[0]
    for number, browser in enumerate((Browser(two.app), Browser(two.app))):
        for again in (number, 1 - number):
            with two.only(again):
                browser.ask("GET", "/catalog")
    assert _visitors(two) == [before + 2] * 2
    counted = []
    for number in (0, 1):
        with two.only(number):
            counted.append(_page_views(Browser(two.app).ask("GET", "/metrics")))
    assert counted[0] == counted[1]
    assert counted[0]


def _visitors(two: Two) -> list[int]:
    told = two.from_both(Browser(two.app), "/api/visitors")
    return [answer["days"][-1]["exact"] for answer in told]


def _page_views(metrics: str) -> list[str]:
    lines = metrics.splitlines()
    return [line for line in lines if 'visitors"' in line and "events" in line]
