"""What every route keeps to: origins, headers, hosts."""

import pytest
from flask import Flask
from flask.testing import FlaskClient

CROSS = [
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://localhost.evil.example"},
]


def _unsafe_routes(app: Flask) -> list[tuple[str, str]]:
    return [
        (method, rule.rule.replace("<product_id>", "7").replace("<name>", "no-cache"))
        for rule in app.url_map.iter_rules()
        for method in sorted((rule.methods or set()) - {"GET", "HEAD", "OPTIONS"})
    ]


def test_every_unsafe_route_refuses_another_site(
    app: Flask, client: FlaskClient
) -> None:
    routes = _unsafe_routes(app)
    assert len(routes) >= 5
    for method, path in routes:
        for headers in CROSS:
            answer = client.open(path, method=method, headers=headers)
            assert answer.status_code == 403, (method, path, headers)


def test_a_session_cookie_without_a_word_from_a_browser_is_refused(
    app: Flask, client: FlaskClient
) -> None:
    client.set_cookie("sid", "abc")
    for method, path in _unsafe_routes(app):
        assert client.open(path, method=method).status_code == 403, (method, path)


def test_every_answer_carries_the_security_headers(
    app: Flask, client: FlaskClient
) -> None:
    for path in (
        "/",
        "/catalog",
        "/catalog/7",
        "/api/products",
        "/healthz",
        "/nothing",
    ):
        headers = client.get(path).headers
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


def test_a_post_without_a_browser_is_allowed(client: FlaskClient) -> None:
    answer = client.post("/api/session/guest")
    assert answer.status_code == 200
