"""Redlock on five servers, as the page of locks shows it; the servers are real."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient

from tests.conftest import wait_until
from webapp.connection.embedded import find_binary
from webapp.connection.scratch import NUMBERS, Keeper, Wishes
from webapp.live.five import Five

HTMX = {"HX-Request": "true"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("five")


@pytest.fixture(scope="module")
def keeper(folder: Path) -> Iterator[Keeper]:
    binary = find_binary()
    assert binary is not None, "no valkey-server and no redis-server to test on"
    keeper = Keeper(binary, Wishes(folder, folder))
    yield keeper
    for child in keeper.processes:
        child.kill()
        child.wait()


@pytest.fixture
def five(
    app: Flask, keeper: Keeper, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> Five:
    """The app's part, whose launcher is this test; all servers are up and empty."""
    monkeypatch.setattr("webapp.live.five.TIMEOUT_S", 0.4)  # the machine may be busy
    five = Five(Wishes(folder, folder), "rpl", demo=True)
    app.extensions["five"] = five
    five.wishes.want()
    for n in NUMBERS:
        five.wishes.ask(n, "up")
    _await(five, keeper)
    with five.clients() as clients:
        for client in clients:
            client.flushall()
    return five


@pytest.fixture
def browser(app: Flask) -> FlaskClient:
    client = app.test_client()
    client.environ_base["HTTP_SEC_FETCH_SITE"] = "same-origin"
    return client


def _await(five: Five, keeper: Keeper) -> None:
    def settled() -> bool:
        keeper.look_after()
        with five.clients() as clients:
            return all(node.is_settled for node in five.look(clients))

    wait_until(settled)


class Page:
    """A browser with the form of the newest answer."""

    def __init__(self, client: FlaskClient, five: Five, keeper: Keeper) -> None:
        self._client, self._five, self._keeper = client, five, keeper
        self.text = ""

    def do(self, what: str, status: int = 200) -> str:
        """Take or release; what the page says, in one line."""
        return self._post("/locks/five/lock", {"do": what}, status)

    def wish(self, n: int, wish: str) -> None:
        self._post(f"/locks/five/nodes/{n}/{wish}", {}, 200)
        _await(self._five, self._keeper)

    def _post(self, path: str, form: dict[str, str], status: int) -> str:
        held = re.findall(r'name="(hold_.)" value="([^"]*)"', self.text)
        answer = self._client.post(path, data=dict(held) | form, headers=HTMX)
        assert answer.status_code == status, answer.text
        self.text = answer.text
        said = re.search(r'role="status">(.*?)</p>', answer.text, re.S)
        return " ".join(re.sub("<[^>]*>", " ", said[1]).split()) if said else ""


@pytest.fixture
def page(browser: FlaskClient, five: Five, keeper: Keeper) -> Page:
    return Page(browser, five, keeper)


def test_the_page_of_locks_offers_it_where_a_launcher_listens(
    browser: FlaskClient, five: Five
) -> None:
    assert 'id="five"' in browser.get("/locks").text


def test_without_a_launcher_it_is_not_there(browser: FlaskClient) -> None:
    assert 'id="five"' not in browser.get("/locks").text
    assert browser.post("/locks/five/start").status_code == 403


def test_one_takes_it_and_the_other_is_refused(page: Page) -> None:
    assert "Worker A was granted it by 5 of 5" in page.do("A:take")
    assert page.text.count("A's lock") == 5
    assert "Worker B was granted it by 0 of 5" in page.do("B:take")
    assert page.do("A:release") == "released 5 of 5 servers had it."
    assert page.do("B:take").startswith("held")


def test_two_lost_servers_are_survived_and_a_third_is_not(page: Page) -> None:
    page.wish(1, "kill")
    page.wish(2, "pause")
    assert "held Worker A was granted it by 3 of 5" in page.do("A:take")
    page.do("A:release")
    page.wish(3, "kill")
    said = page.do("A:take")
    assert "refused Worker A was granted it by 2 of 5" in said
    assert page.text.count("A's lock") == 0
    assert page.text.count(">free<") == 2  # what it got was given back


def test_servers_that_come_back_empty_let_a_second_one_in(page: Page) -> None:
    page.do("A:take")
    for n in (1, 2, 3):
        page.wish(n, "kill")
        page.wish(n, "restart")
    assert page.do("B:take").startswith("two holders held Worker B was granted it by 3")


def test_a_server_that_goes_on_kept_what_it_had(page: Page) -> None:
    page.do("A:take")
    page.wish(4, "pause")
    page.wish(4, "restart")
    assert "0 of 5" in page.do("B:take")


@pytest.mark.parametrize("what", ["", "C:take", "A:steal"])
def test_an_unknown_act_is_an_error(page: Page, what: str) -> None:
    page.do(what, 400)


def test_one_who_has_nothing_cannot_release(page: Page) -> None:
    page.do("A:release", 409)


def test_a_lock_that_is_none_is_an_error(browser: FlaskClient, five: Five) -> None:
    form = {"do": "A:take", "hold_A": "x"}
    assert browser.post("/locks/five/lock", data=form).status_code == 400


@pytest.mark.parametrize("path", ["0/kill", "6/kill", "1/steal"])
def test_an_unknown_server_or_wish_is_an_error(
    browser: FlaskClient, five: Five, path: str
) -> None:
    assert browser.post(f"/locks/five/nodes/{path}").status_code == 404


def test_the_receipt_is_of_the_page_of_locks(page: Page) -> None:
    page.do("A:take")
    assert 'data-page="locks"' in page.text
    assert 'data-page="five"' not in page.text


def test_a_wish_is_forgotten_after_a_minute(
    five: Five, monkeypatch: pytest.MonkeyPatch
) -> None:
    five.wishes.ask(1, "down")
    assert five.wishes.state(1) == "down"
    monkeypatch.setattr("webapp.connection.scratch.RESTORED_S", 0)
    assert five.wishes.state(1) == "up"


def test_servers_that_nobody_wants_are_ended(
    five: Five, keeper: Keeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("webapp.connection.scratch.KEPT_S", 0)
    keeper.look_after()
    assert all(child.poll() is not None for child in keeper.processes)
