"""The page of transfers, on fakeredis."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from flask import Flask
from flask.testing import FlaskClient

from webapp.connection import urls
from webapp.experiments import Replay
from webapp.experiments.transactions import EXPERIMENTS
from webapp.settings import Settings
from webapp.shop.accounts import WAYS

HTMX = {"HX-Request": "true"}
TRANSFER = {"giver": "Anna", "taker": "Ben", "amount": "30", "way": "scripted"}


@pytest.fixture
def durable(app: Flask) -> redis.Redis:
    client: redis.Redis = app.extensions["clients"].durable
    return client


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    client = app.test_client()
    client.environ_base["HTTP_SEC_FETCH_SITE"] = "same-origin"
    return client


def shown(page: str) -> list[str]:
    """The balances of a page."""
    part = page[page.index('aria-label="Balances"') : page.index("<select")]
    return re.findall(r"pill--bare pill--\w+\">\s*([^<]*)<", part)


def test_everybody_begins_with_the_same(client: FlaskClient) -> None:
    assert shown(client.get("/atomicity").text) == ["€ 100"] * 3


@pytest.mark.parametrize("way", WAYS)
def test_a_transfer_is_shown_and_kept(
    client: FlaskClient, durable: redis.Redis, way: str
) -> None:
    answer = client.post("/atomicity/transfer", data=TRANSFER | {"way": way})
    assert shown(answer.text) == ["€ 70", "€ 130", "€ 100"]
    assert shown(client.get("/atomicity").text) == ["€ 70", "€ 130", "€ 100"]
    for name in ("Anna", "Ben", "Cleo"):
        assert 0 < durable.pttl(f"rpl:atomicity:account:{{shop}}:{name}") <= 86_400_000


@pytest.mark.parametrize("way", ["scripted", "watched"])
def test_more_than_there_is_is_refused(client: FlaskClient, way: str) -> None:
    asked = TRANSFER | {"way": way, "amount": "150"}
    answer = client.post("/atomicity/transfer", data=asked, headers=HTMX)
    assert "Anna has € 100, which is less than € 150" in answer.text
    assert shown(answer.text) == ["€ 100"] * 3


def test_multi_alone_overdraws_and_the_page_says_so(client: FlaskClient) -> None:
    asked = TRANSFER | {"way": "queued", "amount": "150"}
    answer = client.post("/atomicity/transfer", data=asked, headers=HTMX)
    assert "overdrawn" in answer.text
    assert shown(answer.text) == ["\u2212€ 50", "€ 250", "€ 100"]
    client.post("/atomicity/again")
    assert shown(client.get("/atomicity").text) == ["€ 100"] * 3


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("way", "hope"),
        ("giver", "Eve"),
        ("taker", "Anna"),
        ("amount", "0"),
        ("amount", "201"),
        ("amount", "-5"),
        ("amount", "1.5"),
        ("amount", "٣"),
        ("amount", ""),
    ],
)
def test_bad_input_is_told_and_moves_nothing(
    client: FlaskClient, field: str, value: str
) -> None:
    answer = client.post("/atomicity/transfer", data=TRANSFER | {field: value})
    assert answer.status_code == 400
    assert shown(client.get("/atomicity").text) == ["€ 100"] * 3


@pytest.mark.parametrize("clients", ["", "1", "3", "18", "x"])
def test_a_race_of_other_sizes_is_refused(client: FlaskClient, clients: str) -> None:
    answer = client.post("/atomicity/race", data={"clients": clients})
    assert answer.status_code == 400


@pytest.mark.parametrize("headers", [{}, HTMX])
def test_a_race_shows_all_four_ways(
    client: FlaskClient, headers: dict[str, str]
) -> None:
    answer = client.post("/atomicity/race", data={"clients": "2"}, headers=headers)
    rows = re.findall(
        r'<th scope="row">([^<]*)</th>\s*<td>\s*<span[^>]*>([^<]*)', answer.text
    )
    assert [title for title, _ in rows] == [
        "Plain commands",
        "MULTI",
        "WATCH",
        "Script",
    ]
    assert re.fullmatch(r"€ \d+ made", rows[0][1])
    assert [said for _, said in rows[1:]] == ["€ 20 overdrawn", "right", "right"]


@pytest.mark.parametrize("name", [e.name for e in EXPERIMENTS])
def test_a_break_it_card_runs(client: FlaskClient, name: str) -> None:
    answer = client.post(f"/atomicity/experiments/{name}", headers=HTMX)
    assert answer.status_code == 200
    assert "pill--no" in answer.text


def test_the_keys_of_the_accounts_are_listed(client: FlaskClient) -> None:
    client.post("/atomicity/transfer", data=TRANSFER)
    assert client.get("/atomicity/keys", headers=HTMX).text.count("{shop}") >= 3


@pytest.fixture
def redis_down(settings: Settings) -> Iterator[None]:
    server = urls.fake_server(settings.redis_urls["durable"])
    server.connected = False
    yield
    server.connected = True


@pytest.mark.parametrize(
    ("method", "path", "form"),
    [
        ("GET", "/atomicity", {}),
        ("POST", "/atomicity/transfer", TRANSFER),
        ("POST", "/atomicity/race", {"clients": "2"}),
        ("POST", "/atomicity/experiments/no-look", {}),
    ],
)
def test_without_redis_the_page_is_503(
    client: FlaskClient,
    redis_down: None,
    method: str,
    path: str,
    form: dict[str, str],
) -> None:
    answer = client.open(path, method=method, data=form)
    assert answer.status_code == 503
    assert "The durable server is down." in answer.text
    assert "Traceback" not in answer.text


def test_a_run_that_fails_half_way_shows_what_it_sent(
    client: FlaskClient, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = urls.fake_server(settings.redis_urls["durable"])
    step = Replay.step

    def then_redis_goes(self: Replay, *args: Any, **more: Any) -> Any:
        answer = step(self, *args, **more)
        server.connected = False
        return answer

    monkeypatch.setattr(Replay, "step", then_redis_goes)
    answer = client.post("/atomicity/experiments/no-retry", headers=HTMX)
    server.connected = True
    assert answer.status_code == 503
    assert "Client 1: WATCH, GET" in answer.text  # before
    assert "Run: WATCH without a retry" in answer.text
    assert re.search("pill--no.>failed<", answer.text)
    assert "<b>0</b> command" not in answer.text
