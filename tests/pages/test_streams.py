"""The order pipeline's page and API on fakeredis: what is shown, taken and refused."""

import re
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
import redis
from flask import Flask
from flask.testing import FlaskClient

from webapp.experiments.streams import EXPERIMENTS
from webapp.http import pipeline
from webapp.patterns.streams.bounded_stream import BoundedStream
from webapp.patterns.streams.dead_letters import Letter
from webapp.shop import orders as shop
from webapp.shop import pace
from webapp.shop.orders import ANALYTICS, BILLING, Item, Order, Orders
from webapp.shop.pace import PLAIN, Pace
from webapp.shop.pipeline import Claim, Done, Entry, GroupNow, Held, Survey
from webapp.shop.shoppers import write_rate
from webapp.workers.fleet import Fleet, Wanted
from webapp.workers.jobs import JOBS
from webapp.workers.worker import Worker

HTMX = {"HX-Request": "true"}
NOW = 1_000_000
PLACED = {
    "items": [{"product_id": 1042, "quantity": 2}],
    "idempotency_key": "first",
}


@pytest.fixture
def orders(app: Flask) -> Orders:
    found: Orders = app.extensions["orders"]
    return found


@pytest.fixture
def fleet(app: Flask) -> Fleet:
    own = Fleet(app.extensions["settings"].instance_path)
    own.add()
    return own


@pytest.fixture
def work(orders: Orders) -> Callable[[], None]:
    """One turn of one worker, which claims what was left before."""
    at_once = msgspec.structs.replace(PLAIN, reclaim_ms=0)

    def turn() -> None:
        worker = Worker(orders, JOBS[BILLING], "worker-1", pace=lambda: at_once)
        worker.begin()
        worker.turn()

    return turn


# The picture


def entries(*numbers: int) -> list[Entry]:
    """The newest first, a second apart; the newest just now."""
    return [
        Entry(f"{NOW - i * 1000}-0", n, f"{NOW - i * 1000}-0")
        for i, n in enumerate(numbers)
    ]


def draw(now: Survey, *wanted: Wanted) -> pipeline.Picture:
    class Some(Fleet):
        def wanted(self) -> list[Wanted]:
            return list(wanted) or [Wanted("worker-1", BILLING)]

    return pipeline.picture(now, Some.__new__(Some), reclaim_ms=15_000)


def group(last: str = f"{NOW}-0", pending: int = 0, lag: int = 0) -> Any:
    return {BILLING: GroupNow(BILLING, 1, pending, last, lag)}


def test_an_empty_pipeline_is_drawn_as_such() -> None:
    drawn = draw(Survey())
    assert (drawn.cells, drawn.rows, drawn.lag) == ([], [], 0)
    assert [lane.state for lane in drawn.lanes] == ["starting"]


def test_entries_are_drawn_by_what_became_of_them() -> None:
    shown = entries(5, 4, 3, 2, 1)
    now = Survey(
        now_ms=NOW,
        entries=shown,
        done={shown[4].id: Done("worker-1", NOW - 9_000, NOW - 8_000, 1)},
        buried=frozenset({shown[3].id}),
        held=[Held(shown[2].id, "worker-1", 100, 1)],
        groups=group(last=shown[2].id, pending=1, lag=2),
    )
    drawn = draw(now)
    states = [cell.state for cell in drawn.cells]
    assert states == ["done", "dead", "pending", "waiting", "waiting"]
    assert (drawn.first, drawn.last) == ("1", "5, newest")
    assert [(mark.x, mark.label) for mark, _ in drawn.read] == [(36, "3")]


def test_the_newest_number_gives_way_to_what_was_delivered_last() -> None:
    shown = entries(*range(64, 0, -1))
    read = draw(Survey(now_ms=NOW, entries=shown, groups=group(last=shown[0].id)))
    half = draw(Survey(now_ms=NOW, entries=shown, groups=group(last=shown[30].id)))
    assert (read.is_read, half.is_read) == (True, False)


def test_at_most_64_entries_are_drawn() -> None:
    assert len(draw(Survey(now_ms=NOW, entries=entries(*range(99, 0, -1)))).cells) == 64


def test_of_a_long_backlog_its_beginning_is_drawn() -> None:
    shown = entries(*range(150, 0, -1))
    drawn = draw(Survey(now_ms=NOW, entries=shown, groups=group(last=shown[99].id)))
    assert (drawn.count("done"), drawn.count("waiting")) == (24, 40)
    assert (drawn.first, drawn.last) == ("28", "91, 59 more")


def test_what_a_worker_did_is_on_its_lane() -> None:
    [entry] = entries(4801)
    done = Done("worker-1", NOW - 30_000, NOW - 24_000, 1)
    now = Survey(now_ms=NOW, entries=[entry], done={entry.id: done})
    [lane] = draw(now).lanes
    [block] = lane.blocks
    assert (block.x, block.width, block.label) == (256, 50.2, "4801")


def test_what_is_older_than_a_minute_is_not_drawn() -> None:
    [entry] = entries(1)
    done = Done("worker-1", NOW - 70_000, NOW - 61_000, 1)
    [lane] = draw(Survey(now_ms=NOW, entries=[entry], done={entry.id: done})).lanes
    assert lane.blocks == []


def test_a_number_that_has_no_room_is_left_out() -> None:
    [entry] = entries(4801)
    done = Done("worker-1", NOW - 3_000, NOW - 1_000, 1)
    [lane] = draw(Survey(now_ms=NOW, entries=[entry], done={entry.id: done})).lanes
    assert [block.label for block in lane.blocks] == [""]


def test_an_order_in_work_is_open_at_its_end() -> None:
    [entry] = entries(7)
    now = Survey(
        now_ms=NOW,
        entries=[entry],
        held=[Held(entry.id, "worker-1", 3_000, 2)],
        seen_ms={"worker-1": 3_000},
        groups=group(pending=1),
    )
    drawn = draw(now)
    [lane] = drawn.lanes
    assert lane.open is not None
    assert (lane.open.x, lane.open.label, lane.open.again) == (486.4, "7", True)
    assert (lane.tone, lane.state) == ("ok", "busy")
    assert [row.note for row in drawn.rows] == ["in work"]


def test_an_order_that_failed_waits_for_its_next_try() -> None:
    first, second = entries(2, 1)
    held = [
        Held(second.id, "worker-1", 12_000, 3),
        Held(first.id, "worker-1", 100, 1),
    ]
    now = Survey(now_ms=NOW, entries=[first, second], held=held)
    assert [row.note for row in draw(now).rows] == [
        "failed, waits to be tried again",
        "in work",
    ]


def test_a_killed_worker_shows_what_it_had_and_since_when() -> None:
    first, second = entries(2, 1)
    held = [Held(e.id, "worker-2", 5_000, 1) for e in (second, first)]
    now = Survey(now_ms=NOW, entries=[first, second], held=held)
    drawn = draw(now, Wanted("worker-2", BILLING, down_ms=NOW - 6_000))
    [lane] = drawn.lanes
    assert (lane.state, lane.action, lane.down) == ("killed", "restart", 460.8)
    assert [chip.label for chip in lane.chips] == ["1"]  # there is room for one
    assert drawn.note == "worker-2 killed 6 s ago, its 2 orders wait to be reclaimed"
    assert drawn.rows[0].note == "its worker was killed"


def test_a_claim_is_marked_on_both_lanes() -> None:
    [entry] = entries(1)
    now = Survey(
        now_ms=NOW,
        entries=[entry],
        held=[Held(entry.id, "worker-1", 2_000, 2)],
        claims=[Claim(entry.id, NOW - 2_000, "worker-2", "worker-1")],
    )
    down = Wanted("worker-2", BILLING, down_ms=NOW - 20_000)
    drawn = draw(now, Wanted("worker-1", BILLING), down)
    assert [(lane.claims, lane.lost) for lane in drawn.lanes] == [
        ([494.9], []),
        ([], [494.9]),
    ]
    assert drawn.rows[0].note == "reclaimed from worker-2"
    assert drawn.note == "worker-2 killed 20 s ago, its order reclaimed after 15 s idle"


def test_a_worker_that_somebody_started_by_hand_has_a_lane_without_a_button() -> None:
    lanes = draw(Survey(now_ms=NOW, seen_ms={"worker-1": 1, "host-77": 1})).lanes
    assert [(lane.name, lane.action) for lane in lanes] == [
        ("worker-1", "kill"),
        ("host-77", ""),
    ]


def test_a_worker_that_does_not_read_is_silent() -> None:
    [lane] = draw(Survey(now_ms=NOW, seen_ms={"worker-1": 20_000})).lanes
    assert lane.state == "silent"


def test_dead_letters_of_the_last_minute_are_on_their_lane() -> None:
    letters = [
        Letter(f"{NOW - ago}-0", "1-1", n, BILLING, "no", 5)
        for n, ago in ((8, 30_000), (7, 90_000))
    ]
    drawn = draw(Survey(now_ms=NOW, letters=letters, letters_count=2))
    assert [(chip.x, chip.label) for chip in drawn.dead_chips] == [(256, "8")]


# The page


def test_the_page_is_there_before_anybody_ordered(client: FlaskClient) -> None:
    page = client.get("/streams").text
    assert "Order pipeline" in page
    assert "No order yet" in page
    assert "No group yet" in page


def test_fifty_orders_are_in_the_stream_and_on_the_page(
    client: FlaskClient, orders: Orders
) -> None:
    part = client.post("/streams/orders", data={"count": "50"}, headers=HTMX).text
    assert orders.client.xlen(orders.stream) == 50
    assert "50 entries: 0 acknowledged, 0 pending, 50 not delivered" in part
    assert "Added 1 to 50" in part
    assert "<b>50</b> commands, <b>50</b> round trips" in part


def test_without_scripts_an_order_answers_with_the_page(client: FlaskClient) -> None:
    page = client.post("/streams/orders", data={"count": "1"}).text
    assert "<html" in page
    assert "1 not delivered" in page


def test_a_billed_order_is_acknowledged_on_the_page(
    client: FlaskClient, fleet: Fleet, work: Callable[[], None]
) -> None:
    client.post("/streams/orders", data={"count": "1"})
    work()
    page = client.get("/streams").text
    assert "1 entry: 1 acknowledged" in page
    assert "worker-1, idle, last minute: 1 acknowledged" in page


def test_the_second_group_has_a_lag_of_its_own(
    client: FlaskClient, orders: Orders, work: Callable[[], None]
) -> None:
    client.post("/streams/orders", data={"count": "1"})
    work()
    rows = re.findall(r"<tr>.*?</tr>", client.get("/streams").text, re.S)
    texts = {g: next(row for row in rows if g in row) for g in (BILLING, ANALYTICS)}
    lags = {g: re.findall(r'"num">(\d+)<', text)[-1] for g, text in texts.items()}
    assert lags == {BILLING: "0", ANALYTICS: "1"}


def test_a_dead_letter_is_shown_with_its_reason_and_can_be_requeued(
    client: FlaskClient, orders: Orders, work: Callable[[], None]
) -> None:
    orders.client.xadd(orders.stream, {"payload": b"<b>no order</b>"})
    for _ in range(6):
        work()
    page = client.get("/streams").text
    assert "DecodeError: JSON is malformed" in page
    letter = re.search(r'name="id" value="([0-9-]+)"', page)
    assert letter is not None
    part = client.post("/streams/letters", data={"id": letter[1]}, headers=HTMX).text
    assert "1 requeued" in part
    assert orders.letters(9) == []


def test_a_letter_that_is_not_there_is_not_requeued(client: FlaskClient) -> None:
    for id in ("1-1", "x", "*"):
        part = client.post("/streams/letters", data={"id": id}, headers=HTMX).text
        assert "0 requeued" in part


def test_a_worker_can_be_killed_and_restarted(
    client: FlaskClient, fleet: Fleet
) -> None:
    part = client.post("/streams/workers", data={"do": "kill:worker-1"}).text
    assert "Restart worker-1" in part
    assert [wanted.down_ms is not None for wanted in fleet.wanted()] == [True]
    part = client.post("/streams/workers", data={"do": "restart:worker-1"}).text
    assert "Kill worker-1" in part
    assert [wanted.down_ms for wanted in fleet.wanted()] == [None]


def test_workers_can_be_added_up_to_eight_and_removed(
    client: FlaskClient, fleet: Fleet
) -> None:
    said = [
        client.post("/streams/workers", data={"do": "add"}, headers=HTMX).text
        for _ in range(8)
    ]
    assert "worker-2 joins" in said[0]
    assert "8 workers are the most" in said[-1]
    part = client.post("/streams/workers", data={"do": "remove"}, headers=HTMX).text
    assert "worker-8 leaves" in part


def test_nobody_else_is_killed(client: FlaskClient, fleet: Fleet) -> None:
    for act in ("", "kill", "kill:", "kill:worker-9", "kill:../x"):
        status = client.post("/streams/workers", data={"do": act}).status_code
        assert status in (400, 409)
    assert [wanted.down_ms for wanted in fleet.wanted()] == [None]


FADERS = {"orders_per_min": "60", "work_ms": "500", "fail_percent": "7"}


def test_the_faders_are_kept_and_shown_again(client: FlaskClient, app: Flask) -> None:
    form = FADERS | {"reclaim_s": "9"}
    part = client.post("/streams/pace", data=form, headers=HTMX).text
    assert "workers follow" in part
    assert pace.read(app.extensions["settings"].instance_path) == Pace(
        orders_per_min=60, work_ms=500, fail_percent=7, reclaim_ms=9_000
    )
    assert 'value="9" data-unit="s"' in client.get("/streams").text


WRONG = [
    {"reclaim_s": "4"},
    {"reclaim_s": "9", "work_ms": "501"},
    {"reclaim_s": "9", "orders_per_min": "310"},
    {"reclaim_s": "9", "fail_percent": "-1"},
    {"reclaim_s": "x"},
    {},
]


def test_a_fader_out_of_bounds_is_400(client: FlaskClient) -> None:
    for wrong in WRONG:
        assert client.post("/streams/pace", data=FADERS | wrong).status_code == 400


def test_another_number_of_orders_is_400(client: FlaskClient) -> None:
    for count in ("0", "2", "51", "x", "1e3"):
        assert client.post("/streams/orders", data={"count": count}).status_code == 400


def test_outside_of_demo_mode_nobody_is_killed_and_no_fader_is_there(
    app: Flask, client: FlaskClient, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = msgspec.structs.replace(app.extensions["settings"], demo=False)
    monkeypatch.setitem(app.extensions, "settings", plain)
    monkeypatch.setattr(app.extensions["flow"], "_settings", plain)
    answers = [
        client.post(f"/streams/{path}", data={"do": "kill:worker-1"}).status_code
        for path in ("workers", "pace")
    ]
    assert answers == [403, 403]
    page = client.get("/streams").text
    assert 'id="streams-pace"' not in page
    assert "Kill worker-1" not in page


@pytest.mark.usefixtures("imitation")
def test_without_workers_the_page_says_so(client: FlaskClient) -> None:
    """An imitation of a server is out of reach for other processes."""
    page = client.get("/streams").text
    assert "Workers need a server that processes can reach" in page


def test_the_page_says_that_shoppers_are_off(
    client: FlaskClient, app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app.extensions["flow"], "has_workers", True)
    assert "no order comes by itself" not in client.get("/streams").text
    write_rate(app.extensions["settings"].instance_path, 0)
    assert "no order comes by itself" in client.get("/streams").text


def test_the_keys_of_the_pipeline_are_shown(
    client: FlaskClient, work: Callable[[], None]
) -> None:
    client.post("/streams/orders", data={"count": "1"})
    work()
    part = client.get("/streams/keys", headers=HTMX).text
    assert re.findall(r'data-key="([^"]+)"', part) == [
        "rpl:streams:stream:{orders}",
        "rpl:streams:number:{orders}",
        "rpl:streams:totals:{orders}:billing",
    ]


def test_without_redis_the_pipeline_is_closed_and_says_so(
    client: FlaskClient, redis_down: None
) -> None:
    for method, path in [("GET", ""), ("POST", "/orders"), ("POST", "/letters")]:
        answer = client.open(f"/streams{path}", method=method)
        assert answer.status_code == 503
        assert answer.headers["Retry-After"]
        assert "Traceback" not in answer.text


@pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda e: e.name)
def test_a_break_it_card_answers_with_its_result(
    client: FlaskClient, orders: Orders, experiment: Any
) -> None:
    url = f"/streams/experiments/{experiment.name}"
    part = client.post(url, headers=HTMX).text
    assert "xp__say" in part
    assert "pill--no" in part
    assert 'class="receipt is-new"' in part
    assert orders.client.keys("rpl:streams:lab*") == []


# The moving part


def test_the_moving_part_is_rendered_outside_of_any_request(app: Flask) -> None:
    app.extensions["orders"].place(Order((Item(7, 1, 100),)), once="a")
    shown = app.extensions["flow"].look()
    html = app.jinja_env.get_template("streams/_frame.html").render(shown)
    assert html.count('hx-swap-oob="outerMorph"') == 2
    assert "1 not delivered" in html


def test_the_moving_part_is_the_one_of_the_page(
    client: FlaskClient, app: Flask
) -> None:
    """So that nothing jumps when the first frame comes."""
    client.post("/streams/orders", data={"count": "50"})
    page = client.get("/streams").text
    html = app.jinja_env.get_template("streams/_frame.html").render(
        app.extensions["flow"].look()
    )
    strip = re.compile(r'<svg class="wide-svg".*?</svg>', re.S)
    assert strip.findall(page) == strip.findall(html)


# The API


def post(client: FlaskClient, **changed: Any) -> Any:
    return client.post("/api/orders", json=PLACED | changed)


def test_an_order_is_taken_and_found_again(client: FlaskClient) -> None:
    answer = post(client)
    assert answer.status_code == 202
    added = answer.json
    assert (added["number"], added["repeated"]) == (1, False)
    found = client.get(f"/api/orders/{added['id']}").json
    assert found == {
        "id": added["id"],
        "state": "waiting",
        "worker": None,
        "deliveries": 0,
    }


def test_the_same_key_again_answers_the_first_order(
    client: FlaskClient, orders: Orders
) -> None:
    first, again = post(client).json, post(client).json
    assert again == first | {"repeated": True}
    assert orders.client.xlen(orders.stream) == 1


def test_an_order_is_billed_at_the_price_of_the_database(
    client: FlaskClient, orders: Orders, work: Callable[[], None]
) -> None:
    cents = client.get("/api/products/1042").json["price_cents"]
    id = post(client).json["id"]
    work()
    assert client.get(f"/api/orders/{id}").json["state"] == "billed"
    assert orders.client.hget(orders.totals(BILLING), "cents") == b"%d" % (2 * cents)


def test_a_product_that_is_named_twice_is_one_line(
    client: FlaskClient, orders: Orders
) -> None:
    post(client, items=[{"product_id": 7, "quantity": 2}] * 3)
    [(_, fields)] = orders.client.xrange(orders.stream)
    assert [i.quantity for i in _order(fields).items] == [6]


def _order(fields: dict[bytes, bytes]) -> Order:
    return msgspec.json.decode(fields[b"payload"], type=Order)


NO_ORDERS: list[tuple[dict[str, Any], int]] = [
    ({"items": []}, 400),
    ({"items": [{"product_id": 7, "quantity": 0}]}, 400),
    ({"items": [{"product_id": 7, "quantity": 101}]}, 400),
    ({"items": [{"product_id": 7, "quantity": 1}] * 21}, 400),
    ({"items": [{"product_id": 7, "quantity": 1, "price_cents": 1}]}, 400),
    ({"items": [{"product_id": 2**31 - 1, "quantity": 1}]}, 404),
    ({"idempotency_key": ""}, 400),
    ({"idempotency_key": "{a}"}, 400),
    ({"idempotency_key": "a" * 65}, 400),
    ({"more": 1}, 400),
]


def test_what_is_no_order_is_refused_and_leaves_nothing(
    client: FlaskClient, orders: Orders
) -> None:
    for changed, status in NO_ORDERS:
        answer = post(client, **changed)
        assert answer.status_code == status, changed
        assert answer.mimetype == "application/problem+json"
    assert orders.client.keys("rpl:streams:*") == []


def test_a_full_pipeline_is_503_and_says_when_to_come_back(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C4: the producer is told, nothing is dropped."""
    monkeypatch.setattr(shop, "STREAM", BoundedStream(cap=1))
    assert post(client).status_code == 202
    full = post(client, idempotency_key="second")
    assert (full.status_code, full.headers["Retry-After"]) == (503, "5")
    assert post(client).json["repeated"]


def test_an_order_that_is_not_there_is_404(client: FlaskClient) -> None:
    assert client.get("/api/orders/1795385319442-0").status_code == 404


def test_what_is_no_id_is_400(client: FlaskClient) -> None:
    for id in ("1", "x", "1-x", "1-1-1", "%7B1%7D", "9" * 16 + "-1"):
        assert client.get(f"/api/orders/{id}").status_code == 400


def test_without_redis_an_order_is_503(client: FlaskClient, redis_down: None) -> None:
    answer = post(client)
    assert answer.status_code == 503
    assert answer.headers["Retry-After"]


def test_an_unanswered_order_can_be_sent_again(
    client: FlaskClient, orders: Orders, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reply is lost after the server ran the command."""
    evalsha = redis.Redis.evalsha

    def lost(self: Any, *args: Any) -> Any:
        evalsha(self, *args)
        raise redis.TimeoutError("no reply")

    monkeypatch.setattr(redis.Redis, "evalsha", lost)
    assert post(client).status_code == 503
    monkeypatch.undo()
    assert post(client).json["repeated"]
    assert orders.client.xlen(orders.stream) == 1
