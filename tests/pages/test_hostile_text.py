"""Text of others stays text, wherever a page shows it: FAULTS I8.

8 payloads here; all 500 in `make test-all`, in Chromium too (tests/browser).
"""

from collections.abc import Iterator
from urllib.parse import quote

import pytest
from flask import Flask
from flask.testing import FlaskClient

from tests import hostile, routes
from tests.conftest import sign_in_as_admin
from tests.hostile import FEW, PAYLOADS
from webapp.admin import names
from webapp.live import feed
from webapp.patterns.streams.consumer_group import ConsumerGroup
from webapp.shop.seed import FEATURED_IDS

pytestmark = pytest.mark.timeout(600)  # for all 500

HTMX = {"HX-Request": "true"}
FIELDS = """
    after again all before board burst category code count cursor device do expected
    fail_percent found id ids orders_per_min reclaim_s work_ms
    key limit name new next old operation operation_id password pattern player points
    price rank rate role run sample shape step stock tag text token ttl_s type typed
    username value variant wanted
"""
COOKIES = "theme projector inside distance tape served player visitor"
few_and_all = pytest.mark.parametrize(
    "payloads",
    [
        pytest.param(FEW, id="8"),
        pytest.param(PAYLOADS, id="500", marks=pytest.mark.slow),
    ],
)


@pytest.fixture
def someone(guest: FlaskClient) -> FlaskClient:
    """A browser in which a guest is an admin too."""
    return sign_in_as_admin(guest)


@pytest.mark.parametrize("payload", PAYLOADS[::25] + PAYLOADS[:20])
def test_a_payload_that_is_not_escaped_is_found(payload: str) -> None:
    """Else the tests below prove nothing."""
    spoilt = (
        f"<p>{payload}</p>",
        f"<title>{payload}</title>",
        f'<p title="{payload}">',
        f"<p title='{payload}'>",
        f"<script>{payload}</script>",
    )
    assert all(
        hostile.Found(page).shown or hostile.Found(page).wrong for page in spoilt
    )
    assert any(hostile.Found(page).wrong for page in spoilt)


def of_feed(app: Flask, client: FlaskClient, texts: list[str]) -> Iterator[str]:
    durable = app.extensions["clients"].durable
    for first in range(0, len(texts), feed.SHOWN):
        batch = texts[first : first + feed.SHOWN]
        hostile.plant(durable, "rpl:leaderboard:week:{season}:none", batch)
        yield client.get("/feed").text
    latest = feed.PATTERN.latest(
        durable, feed.stream("rpl"), decode=feed.decode, count=feed.SHOWN
    )
    yield app.extensions["hub"]._feed._render(feed.entries(latest))


def of_shop(app: Flask, client: FlaskClient, texts: list[str]) -> Iterator[str]:
    hostile.plant_names(app.extensions["settings"].instance_path / "shop.db", texts)
    for n in range(0, len(texts), 5):
        yield client.get(f"/catalog?after={n}").text
    for product in FEATURED_IDS[:3]:
        yield client.get(f"/catalog/{product}").text
    yield client.get("/activity").text
    yield client.get("/").text


def of_board(app: Flask, client: FlaskClient, texts: list[str]) -> Iterator[str]:
    scores = app.extensions["scores"]
    hostile.plant(scores.client, scores.key(scores.week), texts[:500])
    for first in range(0, len(texts), 10):
        yield client.get(f"/leaderboard?after={first}").text


def of_devices(app: Flask, client: FlaskClient, texts: list[str]) -> Iterator[str]:
    for text in texts:
        hostile.plant_session(app.extensions["clients"].durable, text)
        yield client.get("/sessions").text


def of_keys(app: Flask, client: FlaskClient, texts: list[str]) -> Iterator[str]:
    cache = app.extensions["clients"].cache
    hostile.plant(cache, "rpl:leaderboard:week:{season}:none", texts)
    yield client.get("/admin/keys?pattern=*").text
    yield client.get("/admin/memory").text
    for text in texts:
        for name in (f"rpl:catalog:product:{{{text}}}", f"rpl:{text}"):
            key = names.written(name.encode())
            yield client.get("/admin/keys/key", query_string={"key": key}).text
            form = {"key": key, "ttl_s": text}
            yield client.post("/admin/keys/expire/preview", data=form).text


def of_record(app: Flask, client: FlaskClient, texts: list[str]) -> Iterator[str]:
    for first in range(0, len(texts), 10):
        batch = texts[first : first + 10]
        hostile.plant(app.extensions["clients"].durable, "rpl:none", batch)
        yield client.get("/admin/record").text


def of_pipeline(app: Flask, client: FlaskClient, texts: list[str]) -> Iterator[str]:
    """Names of consumers, reasons of dead letters, and what claims say."""
    orders = app.extensions["orders"]
    orders.join(ConsumerGroup())
    for text in texts:
        told = dict.fromkeys(("reason", "group", "from", "by", "id", "number"), text)
        for stream in (orders.stream, orders.dead, orders.claims):
            orders.client.xadd(stream, told)
        orders.client.xreadgroup("billing", text, {orders.stream: ">"}, count=1)
        yield client.get("/streams").text
    shown = app.extensions["flow"].frame()
    yield app.jinja_env.get_template("streams/_frame.html").render(shown)


@pytest.mark.parametrize(
    "surface",
    [of_feed, of_shop, of_board, of_devices, of_keys, of_record, of_pipeline],
)
@few_and_all
def test_what_is_stored_is_shown_as_text(
    app: Flask, someone: FlaskClient, surface: object, payloads: list[str]
) -> None:
    """I8: feed, products, activity, players, devices, keys, values, and the record."""
    assert callable(surface)
    pages = list(surface(app, someone, payloads))
    for page in pages:
        assert hostile.Found(page).wrong == []
    assert sum(hostile.Found(page).shown for page in pages) >= len(payloads)


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/feed", "text"),
        ("/login", "username"),
        ("/sessions/register", "username"),
        ("/sessions/device", "name"),
        ("/catalog/7", "price"),
        ("/leaderboard/scores", "player"),
        ("/admin/login", "wanted"),
        ("/admin/keys/delete/preview", "key"),
        ("/rate-limits/requests", "run"),
    ],
)
@few_and_all
def test_what_is_typed_is_shown_as_text(
    someone: FlaskClient, path: str, field: str, payloads: list[str]
) -> None:
    """I8: forms that come back with what was typed, errors, and the tape below."""
    for n, payload in enumerate(payloads):
        form = {"stock": "x", "key": "rpl:x", field: payload}
        answer = someone.post(path, data=form, headers=HTMX if n % 2 else {})
        assert hostile.Found(answer.text).wrong == []


@few_and_all
def test_an_address_that_is_not_there_is_text(
    client: FlaskClient, payloads: list[str]
) -> None:
    """I8: errors."""
    for n, payload in enumerate(payloads):
        asked = quote(payload, safe="")
        for path in (f"/{asked}", f"/catalog?category={asked}", f"/feed?{asked}"):
            answer = client.get(path, headers=HTMX if n % 2 else {})
            assert hostile.Found(answer.text).wrong == []


@few_and_all
def test_cookies_and_headers_are_text(guest: FlaskClient, payloads: list[str]) -> None:
    """I8: preferences, the player, the browser's name."""
    for n, payload in enumerate(payloads):
        for name in COOKIES.split():
            guest.set_cookie(name, quote(payload) if n % 2 else payload)
        agent = payload.replace("\x00", "").encode().decode("latin-1")
        for path in ("/leaderboard", "/sessions"):
            page = guest.get(path, headers={"User-Agent": agent}).text
            assert hostile.Found(page).wrong == []


@pytest.mark.parametrize("count", [1, pytest.param(25, marks=pytest.mark.slow)])
def test_every_field_of_every_route_is_text(
    app: Flask, someone: FlaskClient, count: int
) -> None:
    """I8 on all routes with 1 payload in each field; with 25 in `make test-all`."""
    for payload in PAYLOADS[1 :: len(PAYLOADS) // count]:
        form = dict.fromkeys(FIELDS.split(), payload)
        for route in routes.routes(app):
            path = route.path
            for argument in route.arguments:
                path = route.with_part(argument, quote(payload, safe=""))
            # Who signs out, or starts the demo over, is somebody else.
            ends = "out" in path or route.method == "DELETE" or path == "/reset"
            browser = app.test_client() if ends else someone
            given = {"query_string" if route.method == "GET" else "data": form}
            with browser.open(path, method=route.method, **given) as answer:
                if answer.mimetype == "text/html":
                    assert hostile.Found(answer.text).wrong == [], route
                assert answer.headers["X-Content-Type-Options"] == "nosniff"
                assert answer.status_code < 500, route
