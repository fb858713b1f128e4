"""The activity page, and what is noted on it, on fakeredis."""

import html
import re
from typing import Any

import msgspec
import pytest
import redis
from flask import Flask
from flask.testing import FlaskClient

from webapp.connection import urls
from webapp.experiments.activity_feed import EXPERIMENTS
from webapp.patterns.session_store import SessionStore
from webapp.shop import activity as shop_activity

HTMX = {"HX-Request": "true"}
EDIT = {"price": "39.95", "stock": "7"}


@pytest.fixture
def durable(app: Flask) -> redis.Redis:
    client: redis.Redis = app.extensions["clients"].durable
    return client


def key_of(client: FlaskClient) -> str:
    name = client.get("/api/session").json["user"]["name"]
    return f"rpl:activity:user:{{{name}}}"


def noted(durable: redis.Redis) -> list[str]:
    """Kind and product of what is on the one list there is, the newest first."""
    [key] = durable.keys("rpl:activity:*")
    return [e.decode().rpartition(":")[0] for e in durable.lrange(key, 0, -1)]


def rows(page: str) -> list[str]:
    """Kind, name and price of the rows of a page."""
    found = re.findall(r"<li>\s*<span class=\"pill\">(.*?)</li>", page, re.S)
    texts = (re.sub(r"<time.*", "", row, flags=re.S) for row in found)
    return [" ".join(re.sub("<[^>]*>", " ", text).split()) for text in texts]


def older(page: str) -> str:
    found = re.search(r'href="([^"]*)"[^>]*>Older<', page)
    return html.unescape(found[1]) if found else ""


def receipts(text: str) -> dict[str, tuple[str, int, int]]:
    """From what a receipt is called to its verdict, its commands and round trips."""
    parts = re.findall(
        r'data-say="([^",]*).*?class="receipt__what">([^<]*)<'
        r".*?<b>(\d+)</b> commands?, <b>(\d+)</b> round trip",
        text,
        re.S,
    )
    return {what: (said, int(n), int(trips)) for said, what, n, trips in parts}


# What is noted


def test_a_product_that_a_guest_looks_at_is_noted(
    guest: FlaskClient, durable: redis.Redis
) -> None:
    guest.get("/catalog/1042")
    guest.get("/catalog/1043", headers=HTMX)
    assert noted(durable) == ["view:1043", "view:1042"]


def test_an_edit_is_noted_from_the_page_and_from_the_api(
    guest: FlaskClient, durable: redis.Redis
) -> None:
    guest.post("/catalog/1042", data=EDIT)
    guest.post("/catalog/1044?variant=write-through", data=EDIT)
    guest.patch("/api/products/1043", json={"stock": 3})
    assert noted(durable) == ["edit:1043", "edit:1044", "edit:1042"]


def test_a_shopper_has_a_list_of_their_own(
    app: Flask, guest: FlaskClient, durable: redis.Redis
) -> None:
    shopper = app.test_client()
    shopper.environ_base["HTTP_SEC_FETCH_SITE"] = "same-origin"
    form = {"username": "ada", "password": "correct horse"}
    shopper.post("/sessions/register", data=form)
    shopper.get("/catalog/1042")
    guest.get("/catalog/1043")
    assert len(durable.keys("rpl:activity:user:*")) == 2
    assert len(rows(shopper.get("/activity").text)) == 1


def test_what_failed_is_not_noted(guest: FlaskClient, durable: redis.Redis) -> None:
    assert guest.get("/catalog/999999").status_code == 404
    assert guest.post("/catalog/1042", data={"price": "x"}).status_code == 422
    assert guest.patch("/api/products/999999", json={"stock": 1}).status_code == 404
    assert durable.keys("rpl:activity:*") == []


def test_products_as_json_are_not_noted(
    guest: FlaskClient, durable: redis.Redis
) -> None:
    guest.get("/api/products/1042")
    assert durable.keys("rpl:activity:*") == []


@pytest.mark.parametrize("headers", [{}, HTMX, {"X-Shopper": "1"}])
def test_anonymous_views_leave_nothing_and_cost_nothing(
    client: FlaskClient,
    durable: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
    headers: dict[str, str],
) -> None:
    asked: list[object] = []
    monkeypatch.setattr(SessionStore, "load", lambda *args: asked.append(args))
    page = client.get("/catalog/1042", headers=headers)
    assert page.status_code == 200
    assert "Note the activity" not in page.text
    assert not asked
    assert durable.keys("rpl:activity:*") == []


def test_a_note_is_one_round_trip_beside_what_was_asked_for(
    guest: FlaskClient,
) -> None:
    guest.get("/catalog/1042")
    shown = receipts(guest.get("/catalog/1042", headers=HTMX).text)
    assert shown["Note the activity"][1:] == (6, 1)
    assert shown["GET /catalog/1042"] == ("hit", 1, 1)


def test_of_an_edit_by_the_api_the_note_is_on_its_own_tape(guest: FlaskClient) -> None:
    body = guest.patch("/api/products/7", json={"stock": 3}, headers={"X-Tape": "1"})
    trips = body.json["tape"]["trips"]
    sent = [[command["name"] for command in trip["commands"]] for trip in trips]
    assert ["MULTI", "LREM", "LPUSH", "LTRIM", "PEXPIRE", "EXEC"] in sent


def test_a_list_ends_seven_days_after_its_last_entry(
    guest: FlaskClient, durable: redis.Redis
) -> None:
    guest.get("/catalog/1042")
    [key] = durable.keys("rpl:activity:*")
    week_ms = 7 * 86_400_000
    assert week_ms - 60_000 < durable.pttl(key) <= week_ms


# The page


def test_who_is_not_signed_in_is_told_and_offered_a_way(client: FlaskClient) -> None:
    page = client.get("/activity").text
    assert "Not signed in" in page
    assert 'href="/login?next=/activity"' in page
    part = client.post("/activity/guest", headers=HTMX).text
    assert "What you did last" in part
    assert 'id="who" hx-swap-oob' in part


def test_without_scripts_one_post_leads_back_to_the_page(client: FlaskClient) -> None:
    page = client.post("/activity/guest").text
    assert "<html" in page
    assert "Nothing yet" in page
    assert 'href="/catalog/1042">Open a product' in page


def test_the_page_shows_what_was_done_the_newest_first(guest: FlaskClient) -> None:
    guest.get("/catalog/1042")
    guest.get("/catalog/1043")
    guest.post("/catalog/1042", data=EDIT)
    shown = rows(guest.get("/activity").text)
    assert [row.split()[0] for row in shown] == ["edit", "view", "view"]
    assert shown[0] == "edit Enamel kettle, 1.7 l € 39.95"


def test_an_old_view_shows_the_price_of_now(guest: FlaskClient) -> None:
    guest.get("/catalog/1042")
    guest.patch("/api/products/1042", json={"price_cents": 1})
    assert rows(guest.get("/activity").text)[1].endswith("€ 0.01")


def test_a_page_costs_one_round_trip_and_one_query(guest: FlaskClient) -> None:
    for product in (1042, 1043, 1042):
        guest.get(f"/catalog/{product}")
    text = guest.get("/activity", headers=HTMX).text
    own = text.rpartition('<li class="receipt')[2]
    assert "<b>1</b> command, <b>1</b> round trip" in own
    assert own.count("SELECT") == 1
    assert "IN (1042, 1043)" in own


def test_a_product_that_is_gone_is_shown_as_gone(
    app: Flask, guest: FlaskClient
) -> None:
    user = guest.get("/api/session").json["user"]["name"]
    app.extensions["activity"].note(user, "view", 999_999)
    assert rows(guest.get("/activity").text) == ["view Product 999999 gone"]


def test_an_entry_that_is_none_of_ours_is_left_out(
    guest: FlaskClient, durable: redis.Redis
) -> None:
    guest.get("/catalog/1042")
    for foreign in ("<b>x</b>", "view:01:1", "view:1042", "\u00e9"):
        durable.lpush(key_of(guest), foreign)
    page = guest.get("/activity")
    assert page.status_code == 200
    assert len(rows(page.text)) == 1
    assert "<b>x</b>" not in page.text


def test_another_visitors_list_is_not_shown(
    app: Flask, guest: FlaskClient, client: FlaskClient
) -> None:
    guest.get("/catalog/1042")
    client.post("/activity/guest")
    client.environ_base["HTTP_SEC_FETCH_SITE"] = "same-origin"
    assert rows(client.get("/activity").text) == []


# Pages


def test_older_leads_through_all_pages_by_entry(guest: FlaskClient) -> None:
    guest.post("/activity/look")
    guest.get("/catalog/1042")
    page, seen = guest.get("/activity").text, list[str]()
    sizes = []
    while True:
        sizes.append(len(rows(page)))
        seen += re.findall(r"<time[^>]*datetime=\"([^\"]*)\"", page)
        if not (url := older(page)):
            break
        guest.get("/catalog/1043")  # while a reader pages, more arrives
        page = guest.get(url, headers=HTMX).text
    assert sizes == [10, 10, 1]
    assert seen == sorted(seen, reverse=True)


def test_the_first_and_last_place_of_a_page_are_told(guest: FlaskClient) -> None:
    guest.post("/activity/look")
    page = guest.get("/activity").text
    assert "1 to 10 of 20 kept, at most 50" in page
    page = guest.get(older(page)).text
    assert "11 to 20 of 20 kept" in page
    assert ">Newest</a>" in page
    assert older(page) == ""


def test_an_entry_that_was_trimmed_is_told_and_is_not_page_one(
    guest: FlaskClient,
) -> None:
    guest.post("/activity/look")
    url = older(guest.get("/activity").text)
    for _ in range(3):
        guest.post("/activity/look")
    page = guest.get(url).text
    assert "That entry is not on the list." in page
    assert rows(page) == []
    assert ">Newest</a>" in page


@pytest.mark.parametrize(
    "after", ["", "x", "view:1042", "view:01:1795385319442", "sale:1:1795385319442",
              "view:1042:1795385319442 ", "<script>", "view:1042:99999999999999"],
)  # fmt: skip
def test_what_is_no_entry_is_400_before_redis(
    guest: FlaskClient, monkeypatch: pytest.MonkeyPatch, after: str
) -> None:
    asked: list[object] = []
    monkeypatch.setattr(shop_activity.Activity, "page", lambda *a, **k: asked.append(a))
    answer = guest.get("/activity", query_string={"after": after})
    assert answer.status_code == 400
    assert not asked


# The cap


def test_twenty_looks_are_twenty_transactions_on_the_tape(guest: FlaskClient) -> None:
    shown = receipts(guest.post("/activity/look", headers=HTMX).text)
    assert shown["POST /activity/look"] == ("20 noted", 121, 21)  # one reads the page


def test_a_full_list_is_trimmed_and_says_where(
    guest: FlaskClient, durable: redis.Redis
) -> None:
    for _ in range(3):
        page = guest.post("/activity/look").text
    assert durable.llen(key_of(guest)) == 50
    assert "trimmed here" not in page  # it is on the last page
    while url := older(page):
        page = guest.get(url).text
    assert "trimmed here" in page
    assert "41 to 50 of 50 kept" in page


def test_a_slot_is_drawn_for_each_place_and_the_shown_ones_stand_out(
    guest: FlaskClient,
) -> None:
    guest.post("/activity/look")
    page = guest.get("/activity").text
    strip = page.partition('class="acts__strip"')[2].partition("</figure>")[0]
    drawn = [strip.count(f'class="f-{tone}"') for tone in ("ok", "ink", "line")]
    assert drawn == [10, 10, 30]
    assert "20 of 50 places taken, 1 to 10 shown" in strip


def test_looking_needs_a_session_and_demo_mode(
    app: Flask, client: FlaskClient, guest: FlaskClient
) -> None:
    assert client.post("/activity/look").status_code == 401
    settings = app.extensions["settings"]
    app.extensions["settings"] = msgspec.structs.replace(settings, demo=False)
    assert guest.post("/activity/look").status_code == 403


# Keys, Redis away, Break it


def test_the_key_of_the_page_is_the_visitors_own(
    guest: FlaskClient, client: FlaskClient
) -> None:
    guest.get("/catalog/1042")
    part = guest.get("/activity/keys", headers=HTMX).text
    assert re.findall(r'data-key="([^"]+)"', part) == [key_of(guest)]
    assert "LIST" in part
    assert "data-housekeeping" in part
    assert "No key in Redis yet" in client.get("/activity/keys").text


def test_personal_answers_are_not_stored(guest: FlaskClient) -> None:
    headers = guest.get("/activity").headers
    assert headers["Cache-Control"] == "no-store"
    assert "Cookie" in headers["Vary"]


def test_without_redis_an_anonymous_visitor_sees_the_way_in(
    client: FlaskClient, redis_down: None
) -> None:
    assert "Sign in as a guest" in client.get("/activity").text


@pytest.mark.parametrize(("method", "path"), [("GET", ""), ("POST", "/look")])
def test_without_redis_the_page_is_503(
    guest: FlaskClient, redis_down: None, method: str, path: str
) -> None:
    answer = guest.open(f"/activity{path}", method=method)
    assert answer.status_code == 503
    assert answer.headers["Retry-After"]
    assert "Redis does not answer" in answer.text
    assert "Traceback" not in answer.text


def test_without_redis_the_key_panel_names_the_server(
    guest: FlaskClient, redis_down: None
) -> None:
    assert "The keys cannot be shown." in guest.get("/activity/keys").text


def test_a_note_that_redis_does_not_take_harms_nobody(
    app: Flask, guest: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis goes away between the session and the note."""

    def go_away(*args: Any, **more: Any) -> None:
        raise redis.ConnectionError("gone")

    monkeypatch.setattr(shop_activity.Activity, "note", go_away)
    assert guest.get("/catalog/1042").status_code == 200
    assert guest.patch("/api/products/1042", json={"stock": 3}).status_code == 200


def test_without_redis_products_are_served(
    guest: FlaskClient, redis_down: None
) -> None:
    assert guest.get("/catalog/1042").status_code == 200


def test_after_an_outage_the_list_is_as_it_was(app: Flask, guest: FlaskClient) -> None:
    from tests.conftest import wait_until

    guest.get("/catalog/1042")
    server = urls.fake_server(app.extensions["settings"].redis_urls["durable"])
    server.connected = False
    guest.get("/catalog/1043")
    server.connected = True
    breaker = app.extensions["clients"].breakers["durable"]
    wait_until(lambda: not breaker.is_open)
    assert len(rows(guest.get("/activity").text)) == 1


@pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda e: e.name)
def test_a_break_it_card_answers_with_its_result(
    client: FlaskClient, durable: redis.Redis, experiment: Any
) -> None:
    url = f"/activity/experiments/{experiment.name}"
    part = client.post(url, headers=HTMX).text
    assert "xp__say" in part
    assert "pill--no" in part
    assert 'class="receipt is-new"' in part
    assert "<html" in client.post(url).text
    assert durable.keys("rpl:activity:*") == []
