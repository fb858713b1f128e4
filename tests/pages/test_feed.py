"""The feed's page, and the news that other pages tell, on fakeredis."""

from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from webapp.experiments.pub_sub import EXPERIMENTS
from webapp.http.events import tell
from webapp.live import feed
from webapp.live.feed import PATTERN, Event

HTMX = {"HX-Request": "true"}
HOSTILE = "<img src=x onerror=alert(1)></script><b>{{7*7}}</b>"


def told(app: Flask) -> list[Event]:
    """What is on the feed, newest first."""
    settings, clients = app.extensions["settings"], app.extensions["clients"]
    latest = PATTERN.latest(
        clients.durable,
        feed.stream(settings.namespace),
        decode=feed.decode,
        count=feed.SHOWN,
    )
    return [entry.event for entry in feed.entries(latest)]


def test_an_empty_feed_says_so(client: FlaskClient) -> None:
    page = client.get("/feed").text
    assert '<div class="empty" id="feed-empty" >' in page
    assert 'data-topics="vitals,feed" data-after="0-0"' in page


def test_what_is_said_is_on_the_page_and_its_place_in_the_feed_too(
    client: FlaskClient,
) -> None:
    page = client.post("/feed", data={"text": "  good   morning "}).text
    assert "good morning</span>" in page.replace("\n", "")
    assert 'data-after="0-0"' not in page
    assert "EVALSHA" in page


def test_htmx_gets_an_empty_line_and_the_receipt(client: FlaskClient) -> None:
    part = client.post("/feed", data={"text": "hello"}, headers=HTMX).text
    assert "<html" not in part
    assert 'value=""' in part
    assert "PUBLISH told 0 subscriptions" in part
    assert 'class="receipt is-new"' in part


def test_what_is_said_is_text(client: FlaskClient) -> None:
    page = client.post("/feed", data={"text": HOSTILE}).text
    assert "<img" not in page
    assert "&lt;img src=x" in page
    assert "{{7*7}}" in page


@pytest.mark.parametrize("text", ["", "   ", "x" * 201, "a\x00b", "a\u202eb"])
def test_what_cannot_be_said_is_told_at_the_line(
    app: Flask, client: FlaskClient, text: str
) -> None:
    answer = client.post("/feed", data={"text": text}, headers=HTMX)
    assert answer.status_code == 422
    assert "1 to 200 printable characters" in answer.text
    assert told(app) == []


def test_a_product_that_a_guest_looks_at_is_news(
    app: Flask, guest: FlaskClient
) -> None:
    guest.get("/catalog/1042")
    view, sign_in = told(app)
    assert view.kind == "view"
    assert view.text == "A guest looks at Enamel kettle, 1.7 l"
    assert view.url == "/catalog/1042"
    assert sign_in.kind == "sign-in"


def test_anonymous_views_are_no_news(app: Flask, client: FlaskClient) -> None:
    client.get("/catalog/1042")
    client.get("/api/products/1042")
    assert told(app) == []


def test_an_edit_is_news_from_the_page_and_from_the_api(
    app: Flask, guest: FlaskClient
) -> None:
    guest.post("/catalog/1042", data={"price": "39.95", "stock": "7"})
    guest.patch("/api/products/1043", json={"price_cents": 1999})
    texts = [e.text.replace("\u00a0", " ") for e in told(app) if e.kind == "edit"]
    assert texts[1] == "Enamel kettle, 1.7 l: € 39.95, 7 in stock"
    assert "€ 19.99" in texts[0]


def test_points_from_the_page_are_news_once(app: Flask, client: FlaskClient) -> None:
    week = app.extensions["scores"].week
    score = {"player": "ada", "points": "7", "operation_id": "once"}
    for _ in range(2):
        assert client.post("/leaderboard/scores", data=score).status_code == 200
    assert [(e.kind, e.text) for e in told(app)] == [
        ("score", f"ada: 7 points on {week}")
    ]


def test_news_is_on_the_tape_beside_what_was_asked_for(guest: FlaskClient) -> None:
    guest.get("/catalog/1042")
    page = guest.get("/catalog/1042").text
    assert "Tell the feed" in page
    assert "<b>1</b> command, <b>1</b> round trip" in page


def test_more_news_than_anyone_reads_is_left_out(app: Flask) -> None:
    with app.test_request_context("/"):
        for n in range(100):
            tell("test", str(n))
    assert len(told(app)) == 20


@pytest.mark.usefixtures("redis_down")
def test_news_without_redis_harms_nobody(app: Flask, client: FlaskClient) -> None:
    with app.test_request_context("/"):
        tell("test", "nobody hears this")
    assert client.get("/catalog/1042").status_code == 200


@pytest.mark.usefixtures("redis_down")
def test_without_redis_the_page_and_the_line_say_so(client: FlaskClient) -> None:
    for answer in (
        client.get("/feed"),
        client.post("/feed", data={"text": "hello"}, headers=HTMX),
    ):
        assert answer.status_code == 503
        assert answer.headers["Retry-After"]
        assert "Redis does not answer" in answer.text
        assert "Traceback" not in answer.text


@pytest.mark.usefixtures("redis_down")
def test_without_redis_the_key_panel_names_the_server(client: FlaskClient) -> None:
    assert "The keys cannot be shown." in client.get("/feed/keys").text


def test_the_stream_and_its_listeners_are_shown(client: FlaskClient) -> None:
    client.post("/feed", data={"text": "hello"})
    panel = client.get("/feed/keys").text
    assert "rpl:feed:events:" in panel
    assert ">1 <small>of 1,000</small>" in panel
    assert "data-housekeeping" in panel


def test_an_event_of_another_kind_of_feed_is_left_out(
    app: Flask, client: FlaskClient
) -> None:
    name = feed.stream("rpl")
    for payload in (b"{broken", b'{"kind":"x","text":"y","url":"//evil.example"}'):
        PATTERN.publish(app.extensions["clients"].durable, name, payload=payload)
    client.post("/feed", data={"text": "after it"})
    page = client.get("/feed")
    assert page.status_code == 200
    assert "after it" in page.text
    assert "evil.example" not in page.text.partition("tape-roll")[0]


@pytest.mark.parametrize(
    "event",
    [
        Event("Bad Kind", "x"),
        Event("x", "x" * 301),
        Event("x", "x", "//evil.example"),
        Event("x", "x", "javascript:alert(1)"),
    ],
)
def test_an_event_that_nobody_would_take_is_not_made(event: Event) -> None:
    with pytest.raises(ValueError, match="Expected"):
        feed.encode(event)


@pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda e: e.name)
def test_a_break_it_card_answers_with_its_result(
    client: FlaskClient, experiment: Any
) -> None:
    url = f"/feed/experiments/{experiment.name}"
    part = client.post(url, headers=HTMX).text
    assert "xp__say" in part
    assert "pill--no" in part
    assert "<html" in client.post(url).text


@pytest.mark.parametrize("headers", [{}, HTMX])
def test_a_cut_line_is_drawn_for_all_six(
    client: FlaskClient, headers: dict[str, str]
) -> None:
    page = client.post("/feed/cut", data={"away": "4"}, headers=headers).text
    assert page.count('class="cut__lane"') == 6
    assert "4 lost" in page
    assert page.count(">all heard<") == 4


@pytest.mark.parametrize("away", ["", "0", "3", "14", "x"])
def test_a_cut_of_another_length_is_refused(client: FlaskClient, away: str) -> None:
    assert client.post("/feed/cut", data={"away": away}).status_code == 400
