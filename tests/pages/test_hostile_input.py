"""What hostile input gets: a clear 4xx, and Redis is never asked. FAULTS I5."""

import urllib.parse
from collections.abc import Iterator
from random import Random

import pytest
from flask import Flask
from flask.testing import FlaskClient

from tests import routes
from webapp.http.ids import _NAME

HOSTILE = [
    "*", "?", "[", "{}", "{1}", "1\n", "\n1", "1\x00", "\x00", "01", "-1", "+1", "1.0",
    "1e3", "0x10", "\u0661", "²", "\uff11", " 1", "1 ", "\u202e1", "😀", "%FF",
    "%C3%28", "%ED%A0%80", "%00", "%2e%2e%2f", "\u0645\u0631\u062d\u0628\u0627",
    "..", "../", "__proto__", "constructor", "null", "true", "' OR 1=1 --", "<script>",
    "${1}", "9" * 11, "9" * 400, "a" * 3000, "rpl:catalog:product:{1}",
    "1;DROP TABLE product",
]  # fmt: skip
HUGE = "a" * 1_000_000
# Ids in a query; those of the API are in its document.
QUERIES = [
    "/catalog/keys?ids={}",
    "/catalog?after={}",
    "/catalog?category={}",
    "/catalog?variant={}",
    "/activity?after={}",
    "/leaderboard?board={}",
    "/leaderboard?after={}",
    "/leaderboard/keys?board={}",
    "/admin/keys?role={}",
    "/admin/keys?pattern=*&step={}",
    "/admin/memory?role={}",
]
ANY_NAME = {"player", "client"}  # whatever is a name may exist


def id_routes(app: Flask) -> Iterator[tuple[str, str, str]]:
    """Method, path with {} for the id, and what the id is of: on every route."""
    document = app.test_client().get("/api/openapi.json").json
    for route in routes.routes(app):
        for argument in route.arguments - {"filename"}:
            yield route.method, route.with_part(argument, "{}"), argument
        rule = route.template.replace("<product_id>", "<id>")
        path = document["paths"].get(rule.replace("<", "{").replace(">", "}"), {})
        operation = path.get(route.method.lower(), {})
        for said in path.get("parameters", []) + operation.get("parameters", []):
            if said["in"] == "query":
                yield route.method, f"{route.path}?{said['name']}={{}}", said["name"]
    for query in QUERIES:
        yield "GET", query, ""


def hostile(count: int) -> list[str]:
    """The list first; the others are made of two or three of its texts."""
    random = Random(count)
    made = (
        "".join(random.choices(HOSTILE, k=random.randint(2, 3)))
        + random.choice("*\n😀")
        for _ in range(count - len(HOSTILE))
    )
    return [HUGE, *HOSTILE, *made]


@pytest.mark.timeout(1500)
@pytest.mark.parametrize("count", [0, pytest.param(5000, marks=pytest.mark.slow)])
def test_a_hostile_id_gets_4xx_and_redis_is_not_asked(
    app: Flask, admin: FlaskClient, count: int
) -> None:
    """I5 on every id of every route with a third of the list each.

    With 5,000 texts each in `make test-all`.
    No connection is taken, so there is no key and no command that could be counted.
    """
    asked: list[object] = []
    for _, redis_client in app.extensions["clients"].items():
        redis_client.connection_pool.get_connection = lambda *args: asked.append(args)
    score = {"player": "ada", "points": 1, "operation_id": "a"}
    bodies = {"PATCH": {"stock": 1}, "POST": {}}
    found = list(id_routes(app))
    assert len(found) >= 40
    texts = hostile(count)
    for at, (method, route, what) in enumerate(found):
        body = score if route.endswith("/scores") else bodies.get(method)
        sent = {"json" if route.startswith("/api/") else "data": body}
        for n, text in enumerate(texts if count else texts[at % 3 :: 3]):
            if what in ANY_NAME and _NAME.fullmatch(text):
                continue
            answer = admin.open(
                route.replace("{}", urllib.parse.quote(text, safe="%")),
                method=method,
                headers={"Accept": "application/json"} if n % 8 else {},
                **sent,
            )
            known = answer.status_code in (400, 404, 405) or (
                answer.status_code == 308  # two slashes are one, on this site
                and answer.headers["Location"].startswith("http://localhost/")
            )
            assert known, (answer.status_code, method, route, text[:99])
            assert not asked, (method, route, text[:99])


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
