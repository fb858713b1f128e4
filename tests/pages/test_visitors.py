"""The visitors page, its API, and how page views are counted, on fakeredis."""

import re

import msgspec
import pytest
import redis
from flask import Flask
from flask.testing import FlaskClient

from webapp import keys
from webapp.connection import urls
from webapp.experiments.unique_visitors import EXPERIMENTS
from webapp.rooms import PAGES

HTMX = {"HX-Request": "true"}


def today(client: FlaskClient) -> dict[str, int]:
    found: dict[str, int] = client.get("/api/visitors").json["days"][-1]
    return found


def receipts(text: str) -> dict[str, str]:
    """From what a receipt is called to what it says."""
    found = re.findall(
        r'data-say="([^"]*)".*?class="receipt__what">([^<]*)<', text, re.S
    )
    return {what: said for said, what in found}


def trips(text: str) -> int:
    return sum(map(int, re.findall(r"<b>(\d+)</b> round trip", text)))


# Page views


def test_a_page_view_counts_its_visitor(client: FlaskClient) -> None:
    client.get("/")
    assert (today(client)["exact"], today(client)["estimate"]) == (1, 1)


def test_a_visitor_counts_once_however_many_pages_they_see(
    client: FlaskClient,
) -> None:
    for path in ("/", "/catalog", "/leaderboard", "/visitors", "/catalog/1042"):
        client.get(path)
    assert today(client)["exact"] == 1


def test_another_browser_is_another_visitor(app: Flask, client: FlaskClient) -> None:
    client.get("/")
    app.test_client().get("/")
    assert today(client)["exact"] == 2


def test_the_visit_is_on_the_tape_under_its_own_name(client: FlaskClient) -> None:
    shown = receipts(client.get("/").text)
    assert shown["Count the visit"].startswith("new, 6 commands")


def test_a_view_costs_one_trip_for_the_visit_and_the_next_none(
    client: FlaskClient,
) -> None:
    assert trips(client.get("/").text) == 1
    assert trips(client.get("/").text) == 0


def test_the_first_trip_of_a_read_is_its_own(client: FlaskClient) -> None:
    shown = receipts(client.get("/catalog/1042").text)
    assert list(shown)[:2] == ["GET /catalog/1042", "Count the visit"]
    assert shown["GET /catalog/1042"].startswith("miss, 2 commands")


@pytest.mark.parametrize(
    "headers", [HTMX, HTMX | {"X-Shopper": "1"}], ids=["htmx", "shopper"]
)
def test_a_fragment_is_no_page_view(
    client: FlaskClient, headers: dict[str, str]
) -> None:
    answer = client.get("/catalog/1042", headers=headers)
    assert "visitor=" not in str(answer.headers)
    assert today(client)["exact"] == 0


@pytest.mark.parametrize("path", ["/api/products/7", "/healthz", "/static/app.css"])
def test_what_is_no_page_counts_nobody(client: FlaskClient, path: str) -> None:
    with client.get(path) as answer:
        assert "visitor=" not in str(answer.headers)
    assert today(client)["exact"] == 0


def test_a_page_view_leaves_only_the_counters(app: Flask, client: FlaskClient) -> None:
    client.get("/")
    names = {
        key.decode().split("{")[0]
        for key in app.extensions["clients"].durable.keys("*")
    }
    assert names == {"rpl:visitors:hll:", "rpl:visitors:set:"}


# The cookie


def test_the_cookie_is_signed_and_out_of_scripts_reach(client: FlaskClient) -> None:
    cookie = client.get("/").headers["Set-Cookie"]
    assert cookie.startswith("visitor=")
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie


@pytest.mark.parametrize("value", ["", "x", "a.b", "WyJhIiwiYiJd.forged", "\u00e9"])
def test_a_forged_cookie_names_nobody(
    app: Flask, client: FlaskClient, value: str
) -> None:
    client.set_cookie("visitor", value)
    answer = client.get("/")
    assert answer.status_code == 200
    assert client.get_cookie("visitor").value != value  # type: ignore[union-attr]
    assert today(client)["exact"] == 1


def test_an_unchanged_cookie_is_not_set_again(client: FlaskClient) -> None:
    client.get("/")
    assert "Set-Cookie" not in client.get("/").headers


# Redis away


@pytest.fixture
def durable_down(app: Flask) -> None:
    for url in set(app.extensions["settings"].redis_urls.values()):
        urls.fake_server(url).connected = False


def test_without_redis_a_page_is_served_and_its_visit_lost(
    client: FlaskClient, durable_down: None
) -> None:
    answer = client.get("/")
    assert answer.status_code == 200
    assert receipts(answer.text)["Count the visit"].startswith("not counted")


def test_a_visit_that_was_lost_is_counted_with_the_next_page(
    app: Flask, client: FlaskClient, durable_down: None
) -> None:
    from tests.conftest import wait_until

    client.get("/")
    for url in app.extensions["settings"].redis_urls.values():
        urls.fake_server(url).connected = True
    breakers = app.extensions["clients"].breakers
    wait_until(lambda: not any(b.is_open for b in breakers.values()))
    client.get("/")
    assert today(client)["exact"] == 1


def test_without_redis_the_page_and_the_api_say_so(
    client: FlaskClient, durable_down: None
) -> None:
    page = client.get("/visitors", headers={"Accept": "text/html"})
    assert page.status_code == client.get("/api/visitors").status_code == 503
    assert "Redis does not answer" in page.text


# The page and the API


def test_the_page_says_what_both_commands_answered(client: FlaskClient) -> None:
    assert "SADD answered 1, PFADD 1" in client.get("/visitors").text
    assert "SADD answered 0, PFADD 0" in client.get("/visitors").text


def test_somebody_new_can_come(client: FlaskClient) -> None:
    client.get("/visitors")
    part = client.post("/visitors/another", headers=HTMX).text
    assert "Somebody: SADD answered 1" in part
    assert today(client)["exact"] == 2


def test_the_api_has_the_documented_shape(client: FlaskClient) -> None:
    client.get("/")
    body = client.get("/api/visitors").json
    fields = [
        "date",
        "exact",
        "estimate",
        "error_percent",
        "exact_bytes",
        "estimate_bytes",
    ]
    assert [list(day) for day in body["days"]] == [fields] * 7
    assert list(body["week"]) == fields
    assert body["days"] == sorted(body["days"], key=lambda day: day["date"])
    assert (body["week"]["exact"], body["week"]["estimate"]) == (1, 1)


def test_a_simulation_goes_on_step_by_step_and_draws_its_curve(
    client: FlaskClient,
) -> None:
    first = client.post("/visitors/simulation", data={"run": "r1"}, headers=HTMX).text
    assert "5,000 of 100,000" in first
    assert 'hx-trigger="load"' in first
    second = client.post("/visitors/simulation", data={"run": "r1"}, headers=HTMX).text
    assert "10,000 of 100,000" in second
    *_, exact = re.findall(r'class="ln ln-2 s-ink" d="([^"]*)"', second)
    assert exact.count("L") == 9  # a point every thousand


def test_a_stopped_simulation_keeps_its_curve(client: FlaskClient) -> None:
    client.post("/visitors/simulation", data={"run": "r1"}, headers=HTMX)
    part = client.get("/visitors/simulation?run=r1", headers=HTMX).text
    assert "5,000 of 100,000" in part
    assert "Go on" in part
    assert "curves" in part


def test_simulated_visitors_are_not_real_ones_and_expire(
    app: Flask, client: FlaskClient
) -> None:
    client.post("/visitors/simulation", data={"run": "r1"}, headers=HTMX)
    cache = app.extensions["clients"].cache
    names = cache.keys("rpl:visitors:*{r1}")
    assert len(names) == 3
    assert all(0 < cache.pttl(name) <= 600_000 for name in names)
    assert today(client)["exact"] == 0


def test_outside_demo_mode_nobody_is_made_up(app: Flask, client: FlaskClient) -> None:
    settings = app.extensions["settings"]
    app.extensions["settings"] = msgspec.structs.replace(settings, demo=False)
    assert client.post("/visitors/simulation").status_code == 403


@pytest.mark.parametrize("name", [e.name for e in EXPERIMENTS])
def test_a_break_it_card_runs_with_and_without_htmx(
    client: FlaskClient, name: str
) -> None:
    url, form = f"/visitors/experiments/{name}", {"visitors": "10000"}
    assert "xp__say" in client.post(url, data=form, headers=HTMX).text
    page = client.post(url, data=form)
    assert page.status_code == 200
    assert "xp__say" in page.text


def test_the_keys_are_todays_the_weeks_and_a_simulations(client: FlaskClient) -> None:
    client.get("/visitors")
    client.post("/visitors/simulation", data={"run": "r1"}, headers=HTMX)
    part = client.get("/visitors/keys?run=r1", headers=HTMX).text
    parts = re.findall(r'data-key="rpl:visitors:([a-z-]+):', part)
    assert parts == [
        "simulated-hll",
        "simulated-set",
        "curve",
        "hll",
        "set",
        "week-hll",
        "week-set",
    ]


@pytest.mark.usefixtures("imitation")  # of which each role has its own
def test_anonymous_views_of_every_page_leave_nothing_but_counters(
    app: Flask, client: FlaskClient
) -> None:
    for page in PAGES:
        assert client.get(page.url).status_code == 200
    client.get("/catalog/1042")
    clients = app.extensions["clients"]
    assert owners(clients.durable) == {"visitors"}
    # What the catalog keeps is the shop's: it is the same whoever looks.
    assert owners(clients.cache) == {"catalog"}


def owners(client: redis.Redis) -> set[str]:
    """The pages that the keys on a server belong to."""
    found = (keys.family_of("rpl", name.decode()) for name in client.scan_iter())
    return {family.page if family else "none" for family in found}
