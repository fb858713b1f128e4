"""What hostile input gets: a clear 4xx, and Redis is never asked."""

import urllib.parse

import pytest
from flask import Flask
from flask.testing import FlaskClient

HOSTILE = [
    "*", "?", "[", "{}", "{1}", "1\n", "\n1", "1\x00", "\x00", "01", "-1", "+1", "1.0",
    "1e3", "0x10", "\u0661", "²", "\uff11", " 1", "1 ", "\u202e1", "😀", "%FF",
    "%C3%28",
    "..", "__proto__", "constructor", "null", "true", "' OR 1=1 --", "<script>", "${1}",
    "9" * 11, "9" * 400, "a" * 3000, "rpl:catalog:product:{1}", "1;DROP TABLE product",
]  # fmt: skip
ROUTES = [
    ("GET", "/catalog/{}"),
    ("POST", "/catalog/{}"),
    ("GET", "/catalog/keys?ids={}"),
    ("GET", "/catalog?after={}"),
    ("GET", "/catalog?category={}"),
    ("POST", "/catalog/experiments/{}"),
    ("GET", "/catalog?variant={}"),
    ("POST", "/catalog/{}/invalidate"),
    ("POST", "/api/categories/{}/invalidate"),
    ("GET", "/api/products/{}"),
    ("PATCH", "/api/products/{}"),
    ("GET", "/api/products?after={}"),
    ("GET", "/api/products?limit={}"),
    ("GET", "/api/products?category={}"),
    ("POST", "/visitors/experiments/{}"),
    ("GET", "/activity?after={}"),
    ("POST", "/activity/experiments/{}"),
    ("POST", "/locks/experiments/{}"),
    ("GET", "/leaderboard?board={}"),
    ("GET", "/leaderboard?after={}"),
    ("GET", "/leaderboard/keys?board={}"),
    ("POST", "/leaderboard/experiments/{}"),
    ("GET", "/api/leaderboard/{}"),
    ("GET", "/api/leaderboard/crowd?after={}"),
    ("GET", "/api/leaderboard/crowd?limit={}"),
    ("POST", "/api/leaderboard/{}/scores"),
]


@pytest.mark.parametrize(("method", "route"), ROUTES)
def test_a_hostile_id_gets_4xx_and_redis_is_not_asked(
    app: Flask, client: FlaskClient, method: str, route: str
) -> None:
    asked: list[object] = []
    for _, redis_client in app.extensions["clients"].items():
        redis_client.connection_pool.get_connection = asked.append
    bodies = {"PATCH": {"stock": 1}, "POST": {} if "/api/" in route else None}
    if route.endswith("/scores"):
        bodies["POST"] = {"player": "ada", "points": 1, "operation_id": "a"}
    for hostile in HOSTILE:
        path = route.replace("{}", urllib.parse.quote(hostile, safe="%"))
        answer = client.open(path, method=method, json=bodies.get(method))
        assert answer.status_code in (400, 404, 405), (path, answer.status_code)
        assert not asked


@pytest.mark.parametrize(
    "body",
    [b"", b"null", b"[]", b"{", b'"x"', b"\xff\xfe", b"[" * 50_000, b'{"stock": 1e400}',
     b'{"stock": -1}', b'{"stock": 1000001}', b'{"stock": "1"}', b'{"stock": 1.5}',
     b'{"price_cents": 0}', b'{"price_cents": true}', b'{"name": "x"}', b"{}",
     b'{"stock": NaN}', b'{"stock": ' + b"9" * 5_000 + b"}"],
    ids=range(18),
)  # fmt: skip
def test_an_unusable_body_gets_400_and_changes_nothing(
    guest: FlaskClient, body: bytes
) -> None:
    before = guest.get("/api/products/7").json
    answer = guest.patch("/api/products/7", data=body, content_type="application/json")
    assert answer.status_code == 400
    assert answer.mimetype == "application/problem+json"
    assert guest.get("/api/products/7").json == before


def test_a_large_body_gets_413(guest: FlaskClient) -> None:
    answer = guest.patch(
        "/api/products/7", data=b"x" * 70_000, content_type="application/json"
    )
    assert answer.status_code == 413


def test_a_body_that_is_not_json_gets_415(guest: FlaskClient) -> None:
    answer = guest.patch(
        "/api/products/7", data='{"stock": 1}', content_type="text/plain"
    )
    assert answer.status_code == 415


@pytest.mark.parametrize(
    ("price", "stock"),
    [("", "1"), ("x", "1"), ("-1", "1"), ("0", "1"), ("1.234", "1"), ("1", ""),
     ("1", "-1"), ("1", "x"), ("1", "9999999"), ("999999999999", "1"), ("1", "²")],
)  # fmt: skip
def test_a_form_with_a_bad_field_names_it_and_keeps_what_was_typed(
    guest: FlaskClient, price: str, stock: str
) -> None:
    answer = guest.post("/catalog/7", data={"price": price, "stock": stock})
    assert answer.status_code == 422
    assert 'aria-invalid="true"' in answer.text
    assert f'value="{price}"' in answer.text
    assert f'value="{stock}"' in answer.text
