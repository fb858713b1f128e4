"""What every route keeps to: origins, cookies, caches, headers, hosts.

FAULTS G7 and G9 in full: they ask for all routes, so nothing here counts less.
"""

import sqlite3
from collections.abc import Iterator

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from tests import routes
from tests.conftest import sign_in_as_admin
from webapp import keys
from webapp.admin import sign_in

CROSS = [
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": ""},
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://localhost:81"},
    {"Origin": "http://localhost.evil.example"},
    {"Origin": "http://localhost", "Sec-Fetch-Site": "cross-site"},
]
COOKIES = ["sid", "__Host-sid", "admin"]
# Nobody's own: the same bytes for whoever asks. Everything else is personal.
PUBLIC = {
    "static", "ops.healthz", "ops.readyz", "ops.exposition", "api.document",
    "api.products", "api.product", "api.categories", "rate_limits.plan",
    "leaderboard_api.page", "leaderboard_api.player", "visitors_api.show",
    "orders_api.order",
    "throttled.throttled", "throttled.unthrottled",
}  # fmt: skip
# A look fills caches, makes a sum anew, is counted, and is told.
LEFT_BY_A_LOOK = (
    keys.PRODUCT, keys.LEASE, keys.LIST, keys.TAG, keys.RESPONSE, keys.GENERATION,
    keys.DAY_HLL, keys.DAY_SET,
    keys.WEEK_HLL, keys.WEEK_SET, keys.SEASON, keys.ENDED, keys.FEED, keys.ACTIVITY,
    keys.FIXED_WINDOW, keys.SLIDING_WINDOW_LOG, keys.TALLY,
)  # fmt: skip


@pytest.fixture
def someone(guest: FlaskClient) -> FlaskClient:
    """A browser in which a guest is an admin too."""
    return sign_in_as_admin(guest)


# G7: what another site makes a browser send


def test_every_unsafe_route_refuses_another_site(
    app: Flask, someone: FlaskClient
) -> None:
    """G7."""
    del someone.environ_base["HTTP_SEC_FETCH_SITE"]
    found = routes.unsafe(app)
    assert len(found) >= 40
    for route in found:
        for headers in CROSS:
            answer = someone.open(route.path, method=route.method, headers=headers)
            assert answer.status_code == 403, (route, headers)


@pytest.mark.parametrize("cookie", COOKIES)
def test_a_session_cookie_without_a_word_from_a_browser_is_refused(
    app: Flask, client: FlaskClient, cookie: str
) -> None:
    """G7."""
    for route in routes.unsafe(app):
        client.set_cookie(cookie, "abc")  # an answer may have removed it
        answer = client.open(route.path, method=route.method)
        assert answer.status_code == 403, route


def test_a_refused_request_signs_nobody_out(app: Flask, someone: FlaskClient) -> None:
    """G7: not even the answer to it does."""
    # Another port of this machine is the same site, so cookies come along.
    headers = {"Sec-Fetch-Site": "same-site", "Accept": "application/json"}
    for route in routes.unsafe(app):
        someone.open(route.path, method=route.method, headers=headers)
    assert someone.get("/api/session").json["user"]
    assert someone.get("/admin/record").status_code == 200


def test_a_post_without_a_browser_is_allowed(client: FlaskClient) -> None:
    answer = client.post("/api/session/guest")
    assert answer.status_code == 200


@pytest.mark.parametrize(
    "content_type",
    ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""],
)
def test_what_a_form_of_another_site_can_send_is_not_taken_for_json(
    app: Flask, guest: FlaskClient, content_type: str
) -> None:
    """G7: every operation that the interface document gives a body."""
    paths = guest.get("/api/openapi.json").json["paths"]
    found = 0
    for route in routes.unsafe(app):
        template = route.template.replace("<product_id>", "<id>")
        said = paths.get(template.replace("<", "{").replace(">", "}"), {})
        if "requestBody" in said.get(route.method.lower(), {}):
            found += 1
            answer = guest.open(
                route.path,
                method=route.method,
                data='{"stock": 1}',
                content_type=content_type or None,
            )
            assert answer.status_code == 415, route
    assert found >= 4


def test_no_look_changes_anything(app: Flask, someone: FlaskClient) -> None:
    """G7: Redis and the database are as they were, but for what is counted."""
    someone.post("/sessions/code")
    someone.post("/leaderboard/samples")
    before, changes = _kept(app), _changes(app)
    edits = next(changes)
    for route in routes.safe(app):
        for headers in ({}, {"HX-Request": "true"}):
            someone.get(route.path, headers=headers).close()
    assert _kept(app) == before
    assert next(changes) == edits
    assert someone.get("/api/session").json["user"]
    assert someone.get("/admin/record").status_code == 200


def _kept(app: Flask) -> dict[bytes, bytes | None]:
    """All that a look must leave alone."""
    namespace = app.extensions["settings"].namespace
    return {
        key: client.dump(key)
        for _, client in app.extensions["clients"].items()
        for key in client.scan_iter()
        if keys.family_of(namespace, key.decode()) not in LEFT_BY_A_LOOK
    }


def _changes(app: Flask) -> Iterator[int]:
    """A number that is another one after each change of the database by others."""
    with sqlite3.connect(app.extensions["settings"].instance_path / "shop.db") as own:
        while True:
            yield own.execute("PRAGMA data_version").fetchone()[0]


@pytest.mark.parametrize(
    "origin",
    [None, "null", "http://evil.example", "http://localhost:81", "https://localhost",
     "http://localhost.evil.example", "http://evil.example/http://localhost"],
)  # fmt: skip
def test_every_websocket_refuses_another_site(
    app: Flask, someone: FlaskClient, origin: str | None
) -> None:
    """H1: before it answers 101; test_live asks the web server."""
    headers = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
    }
    found = list(routes.routes(app, websocket=True))
    assert found
    for route in found:
        asked = headers | ({"Origin": origin} if origin else {})
        answer = someone.get(f"{route.path}?topics=vitals", headers=asked)
        assert answer.status_code == 403, route


# G9: cookies and caches


def test_what_is_personal_is_not_stored(app: Flask, someone: FlaskClient) -> None:
    """G9: every route is personal but those that are listed as public."""
    for route in routes.safe(app):
        with someone.get(route.path) as answer:
            if route.endpoint not in PUBLIC:
                assert answer.headers["Cache-Control"] == "no-store", route
                assert "Cookie" in answer.headers.get("Vary", ""), route


def test_every_cookie_has_its_flags_on_tls(app: Flask, client: FlaskClient) -> None:
    """G9: whatever sets one; test_sessions has the flags on plain HTTP."""
    client.environ_base["HTTP_SEC_FETCH_SITE"] = "same-origin"
    token = sign_in.offer_link(app.extensions["settings"].instance_path)
    score = {"player": "ada", "points": "7", "operation_id": "once"}
    asked: list[tuple[str, str, dict[str, str]]] = [
        ("POST", "/admin/login", {"token": token}),
        ("POST", "/sessions/guest", {}),
        ("POST", "/leaderboard/scores", score),
        *(("GET", route.path, {}) for route in routes.safe(app)),
        ("POST", "/sessions/out", {}),
        ("POST", "/admin/logout", {}),
    ]
    given: set[str] = set()
    for method, path, form in asked:
        base = "https://localhost"
        with client.open(path, method=method, data=form, base_url=base) as answer:
            given |= _checked_cookies(answer)
    assert given == {"admin", "visitor", "served", "player", "__Host-sid"}


def _checked_cookies(answer: TestResponse) -> set[str]:
    """The names of the cookies of this answer; each has all the flags."""
    names = set()
    for cookie in answer.headers.getlist("Set-Cookie"):
        name, *flags = cookie.split("; ")
        names.add(name.partition("=")[0])
        same_site = "Strict" if name.startswith("admin=") else "Lax"
        assert {"HttpOnly", "Secure", f"SameSite={same_site}"} <= set(flags), cookie
        assert "Path=/" in flags or name.startswith(("served=", "player=")), cookie
        assert "Domain" not in cookie
    return names


# Headers, hosts, errors


def test_every_answer_carries_the_security_headers(
    app: Flask, client: FlaskClient
) -> None:
    paths = [route.path for route in routes.safe(app)]
    for path in (*paths, "/nothing"):
        with client.get(path) as answer:
            headers = answer.headers
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "same-origin"


def test_an_unknown_host_is_refused(client: FlaskClient) -> None:
    assert client.get("/", headers={"Host": "evil.example"}).status_code == 400


@pytest.mark.parametrize("path", ["/nothing", "/catalog/999999", "/catalog/x"])
def test_an_error_is_a_page_for_people_and_a_problem_for_programs(
    client: FlaskClient, path: str
) -> None:
    page = client.get(path, headers={"Accept": "text/html"})
    problem = client.get(path, headers={"Accept": "application/json"})
    assert page.status_code == problem.status_code
    assert "<h1>" in page.text
    assert problem.mimetype == "application/problem+json"
    body = problem.get_json(force=True)
    assert {"type", "title", "status", "detail", "instance"} <= body.keys()
    assert body["status"] == problem.status_code
