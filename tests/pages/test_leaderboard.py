"""The leaderboard page and its API, on fakeredis."""

import re
from datetime import date
from typing import Any

import msgspec
import pytest
from flask import Flask
from flask.testing import FlaskClient

from webapp.experiments.leaderboard import EXPERIMENTS
from webapp.shop import scores as shop_scores
from webapp.shop.scores import Scores

HTMX = {"HX-Request": "true"}


@pytest.fixture
def week(app: Flask) -> str:
    scores: Scores = app.extensions["scores"]
    return scores.week


@pytest.fixture
def api(week: str) -> str:
    return f"/api/leaderboard/{week}"


def score(player: str, points: Any, op: str) -> dict[str, Any]:
    return {"player": player, "points": points, "operation_id": op}


def add(client: FlaskClient, **form: str) -> str:
    given = {"player": "ada", "points": "50", "operation_id": "op1"} | form
    return client.post("/leaderboard/scores", data=given, headers=HTMX).text


def verdict(text: str) -> str:
    """Of the request's own receipt: what it told others comes before it."""
    return re.findall(r'data-say="([^",]*)', text)[-1]


# The page


def test_an_empty_board_offers_to_fill_it(client: FlaskClient) -> None:
    page = client.get("/leaderboard").text
    assert "Nobody has points yet" in page
    assert "Add sample shoppers" in page


def test_samples_fill_the_week_and_the_season(client: FlaskClient, week: str) -> None:
    client.post("/leaderboard/samples")
    page = client.get("/leaderboard").text
    assert "Wim" in page
    season = client.application.extensions["scores"].season  # type: ignore[attr-defined]
    sums = client.get(f"/api/leaderboard/{season}").json["items"]
    weekly = client.get(f"/api/leaderboard/{week}/players/{sums[0]['player']}").json
    assert sums[0]["score"] > weekly["score"] > 0


def test_added_points_show_score_rank_and_neighbours(client: FlaskClient) -> None:
    client.post("/leaderboard/samples")
    part = add(client)
    assert verdict(part) == "added"
    assert "<html" not in part
    assert "Around ada" in part
    assert re.search(r"score 50, rank \d+", part)


def test_the_same_sent_again_is_told_as_repeated(client: FlaskClient) -> None:
    add(client)
    part = add(client)
    assert verdict(part) == "repeated"
    assert "score 50, rank 1" in part


def test_the_player_is_remembered(client: FlaskClient) -> None:
    add(client, player="bo")
    assert "Around bo" in client.get("/leaderboard").text


def test_a_bad_name_is_told_at_its_field_and_nothing_typed_is_lost(
    client: FlaskClient,
) -> None:
    answer = client.post(
        "/leaderboard/scores",
        data={"player": "a b", "points": "50", "operation_id": "x"},
    )
    assert answer.status_code == 422
    assert 'aria-invalid="true"' in answer.text
    assert 'value="a b"' in answer.text


def test_a_rank_can_be_gone_to(client: FlaskClient) -> None:
    client.post("/leaderboard/samples")
    page = client.get("/leaderboard?rank=21").text
    assert "After rank 20" in page
    assert "First page" in page


def test_the_keys_are_the_board_and_the_operation(
    client: FlaskClient, week: str
) -> None:
    add(client)
    part = client.get("/leaderboard/keys?operation=op1", headers=HTMX).text
    named = re.findall(r'data-key="([^"]*)"', part)
    assert named == [
        f"rpl:leaderboard:week:{{season}}:{week}",
        "rpl:leaderboard:op:{season}:op1",
    ]


@pytest.mark.parametrize("name", [e.name for e in EXPERIMENTS])
def test_a_break_it_card_runs_with_and_without_htmx(
    client: FlaskClient, name: str
) -> None:
    url, form = f"/leaderboard/experiments/{name}", {"players": "20000"}
    assert "xp__say" in client.post(url, data=form, headers=HTMX).text
    page = client.post(url, data=form)
    assert page.status_code == 200
    assert "<html" in page.text
    assert "xp__say" in page.text


# A million players


@pytest.fixture
def small_crowd(monkeypatch: pytest.MonkeyPatch) -> int:
    size = 30_000
    for module in ("webapp.shop.scores", "webapp.views.leaderboard"):
        monkeypatch.setattr(f"{module}.CROWD_SIZE", size)
    return size


def test_each_step_adds_a_bounded_number_and_asks_for_the_next(
    client: FlaskClient, small_crowd: int
) -> None:
    first = client.post("/leaderboard/crowd", headers=HTMX).text
    assert "20,000 of 30,000 players" in first
    assert 'hx-trigger="load"' in first
    last = client.post("/leaderboard/crowd", headers=HTMX).text
    assert "30,000 of 30,000 players" in last
    assert 'hx-trigger="load"' not in last


def test_who_stops_keeps_what_there_is(client: FlaskClient, small_crowd: int) -> None:
    client.post("/leaderboard/crowd", headers=HTMX)
    part = client.get("/leaderboard/crowd", headers=HTMX).text
    assert "20,000 of 30,000 players" in part
    assert "Go on" in part
    assert 'hx-trigger="load"' not in part


def test_the_crowd_goes_after_an_hour_or_by_a_button(
    app: Flask, client: FlaskClient, small_crowd: int
) -> None:
    durable, key = app.extensions["clients"].durable, "rpl:leaderboard:crowd:{season}"
    client.post("/leaderboard/crowd", headers=HTMX)
    assert 3_590_000 < durable.pttl(key) <= 3_600_000
    client.post("/leaderboard/crowd/remove", headers=HTMX)
    assert not durable.exists(key)


def test_the_crowd_is_a_board_with_pages_and_neighbours(
    client: FlaskClient, small_crowd: int
) -> None:
    client.post("/leaderboard/crowd", headers=HTMX)
    page = client.get("/api/leaderboard/crowd?after=15000&limit=2").json
    assert [item["rank"] for item in page["items"]] == [15001, 15002]
    player = page["items"][0]["player"]
    found = client.get(f"/api/leaderboard/crowd/players/{player}").json
    assert len(found["neighbours"]) == 6


def test_outside_demo_mode_nothing_is_made_up(app: Flask, client: FlaskClient) -> None:
    settings = app.extensions["settings"]
    app.extensions["settings"] = msgspec.structs.replace(settings, demo=False)
    for action in ("samples", "crowd", "crowd/remove"):
        assert client.post(f"/leaderboard/{action}").status_code == 403


# The API


def test_a_score_answers_player_score_and_rank(client: FlaskClient, api: str) -> None:
    body = client.post(f"{api}/scores", json=score("ada", 30, "a")).json
    assert body == {"player": "ada", "score": 30, "rank": 1}


def test_a_repeated_operation_answers_the_same(client: FlaskClient, api: str) -> None:
    first = client.post(f"{api}/scores", json=score("ada", 30, "a")).json
    client.post(f"{api}/scores", json=score("bo", 40, "b"))
    assert client.post(f"{api}/scores", json=score("ada", 30, "a")).json == first
    assert client.get(f"{api}/players/ada").json["score"] == 30


def test_another_request_with_the_same_operation_id_gets_409(
    client: FlaskClient, api: str
) -> None:
    client.post(f"{api}/scores", json=score("ada", 30, "a"))
    answer = client.post(f"{api}/scores", json=score("ada", 31, "a"))
    assert answer.status_code == 409
    assert answer.mimetype == "application/problem+json"


@pytest.mark.parametrize(
    "points", ["NaN", "Infinity", "-Infinity", "1e400", "9007199254740993", "-1", "1.5",
               "1e300", "true", '"1"', "null"],
)  # fmt: skip
def test_k1_points_that_are_no_score_get_400(
    app: Flask, client: FlaskClient, api: str, points: str
) -> None:
    body = f'{{"player": "ada", "operation_id": "a", "points": {points}}}'
    answer = client.post(f"{api}/scores", data=body, content_type="application/json")
    assert answer.status_code == 400
    assert answer.mimetype == "application/problem+json"
    assert app.extensions["clients"].durable.keys("*") == []


def test_k1_a_score_over_2_53_gets_400_and_is_not_counted(
    client: FlaskClient, api: str
) -> None:
    client.post(f"{api}/scores", json=score("ada", 2**53, "a"))
    assert client.post(f"{api}/scores", json=score("ada", 1, "b")).status_code == 400
    assert client.get(f"{api}/players/ada").json["score"] == 2**53


@pytest.mark.parametrize("field", ["player", "operation_id"])
@pytest.mark.parametrize("name", ["", "a b", "a\n", "-a", "a:b", "{a}", "a" * 65, "é"])
def test_a_bad_name_gets_400(
    client: FlaskClient, api: str, field: str, name: str
) -> None:
    body = score("ada", 1, "a") | {field: name}
    assert client.post(f"{api}/scores", json=body).status_code == 400


def test_following_next_sees_everybody_once_in_order(
    client: FlaskClient, api: str
) -> None:
    for n in range(7):
        client.post(f"{api}/scores", json=score(f"p{n}", n % 3, f"op{n}"))
    url, seen = f"{api}?limit=3", []
    while url:
        body = client.get(url).json
        seen += [(item["rank"], item["player"]) for item in body["items"]]
        url = body["next"]
    names = ["p5", "p2", "p4", "p1", "p6", "p3", "p0"]
    assert seen == list(enumerate(names, start=1))


def test_a_player_comes_with_neighbours(client: FlaskClient, api: str) -> None:
    for n in range(3):
        client.post(f"{api}/scores", json=score(f"p{n}", n, f"op{n}"))
    assert client.get(f"{api}/players/p1").json == {
        "player": "p1",
        "score": 1,
        "rank": 2,
        "neighbours": [
            {"player": "p2", "score": 2, "rank": 1},
            {"player": "p0", "score": 0, "rank": 3},
        ],
    }


def test_a_player_and_an_add_cost_one_round_trip(client: FlaskClient, api: str) -> None:
    tape = {"X-Tape": "1"}
    added = client.post(f"{api}/scores", json=score("ada", 1, "a"), headers=tape).json
    found = client.get(f"{api}/players/ada", headers=tape).json
    assert added["tape"]["round_trips"] == found["tape"]["round_trips"] == 1


@pytest.mark.parametrize("path", ["2020-W01", "nothing", "2026-Q9"])
def test_a_board_that_cannot_exist_is_404(client: FlaskClient, path: str) -> None:
    assert client.get(f"/api/leaderboard/{path}").status_code == 404


def test_only_a_week_takes_points(client: FlaskClient) -> None:
    answer = client.post("/api/leaderboard/crowd/scores", json=score("ada", 1, "a"))
    assert answer.status_code == 404


def test_who_has_no_points_is_404(client: FlaskClient, api: str) -> None:
    assert client.get(f"{api}/players/nobody").status_code == 404


# Redis away


def test_without_redis_the_page_says_so(client: FlaskClient, redis_down: None) -> None:
    answer = client.get("/leaderboard", headers={"Accept": "text/html"})
    assert answer.status_code == 503
    assert answer.headers["Retry-After"]
    assert "Redis does not answer" in answer.text
    assert "Traceback" not in answer.text


def test_without_redis_the_api_answers_a_problem(
    client: FlaskClient, api: str, redis_down: None
) -> None:
    answer = client.post(f"{api}/scores", json=score("ada", 1, "a"))
    assert answer.status_code == 503
    assert answer.mimetype == "application/problem+json"


# Weeks and seasons


@pytest.mark.parametrize(
    ("day", "week", "last", "season"),
    [
        (date(2026, 11, 22), "2026-W47", "2026-W46", "2026-Q4"),
        (date(2026, 11, 23), "2026-W48", "2026-W47", "2026-Q4"),
        (date(2026, 12, 31), "2026-W53", "2026-W52", "2026-Q4"),
        (date(2027, 1, 4), "2027-W01", "2026-W53", "2027-Q1"),
    ],
)
def test_weeks_are_iso_weeks_and_seasons_their_quarters(
    app: Flask, day: date, week: str, last: str, season: str
) -> None:
    scores = Scores(app.extensions["clients"].durable, "rpl", today=lambda: day)
    assert (scores.week, scores.last_week, scores.season) == (week, last, season)


def test_ended_weeks_outlive_their_season_until_the_last_was_added() -> None:
    from datetime import UTC, datetime

    end_ms = shop_scores._season_end_ms(date(2026, 11, 22))
    assert datetime.fromtimestamp(end_ms / 1000, UTC).date() == date(2027, 1, 12)
