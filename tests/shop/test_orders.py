"""Orders and workers on fakeredis: what becomes of an order, and who is wanted."""

import os
import signal
import time
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from webapp.connection.recorder import Command, Recording, Trip
from webapp.connection.urls import client_for
from webapp.patterns.streams.bounded_stream import BoundedStream, StreamFull
from webapp.patterns.streams.consumer_group import Delivery
from webapp.scripts import preload
from webapp.shop import orders as shop
from webapp.shop import pace
from webapp.shop.orders import ANALYTICS, BILLING, Item, Order, Orders, Progress
from webapp.shop.pace import PLAIN, Pace
from webapp.shop.pipeline import survey
from webapp.workers import fleet as fleets
from webapp.workers import jobs, worker
from webapp.workers.fleet import Fleet
from webapp.workers.jobs import JOBS, Declined, Job
from webapp.workers.receipts import Pen, Reader
from webapp.workers.worker import Worker

ORDER = Order((Item(7, 2, 150), Item(8, 1, 1_000)))
AT_ONCE = msgspec.structs.replace(PLAIN, reclaim_ms=0)


@pytest.fixture
def orders() -> Iterator[Orders]:
    client = client_for("fake://orders", role="durable", max_connections=4)
    client.flushall()
    yield Orders(client, "rpl")
    client.connection_pool.disconnect()


def working(
    orders: Orders, job: Job = JOBS[BILLING], now: Pace = AT_ONCE, name: str = "w1"
) -> tuple[Worker, list[str]]:
    told: list[str] = []
    own = Worker(orders, job, name, pace=lambda: now, count=told.append)
    own.begin()
    return own, told


def failing(error: Exception) -> Job:
    def do(delivery: Delivery, now: Pace, work: jobs.Work) -> Mapping[str, int]:
        raise error

    return Job(BILLING, batch=1, rest_ms=0, do=do)


def totals(orders: Orders, group: str = BILLING) -> dict[bytes, bytes]:
    found: Any = orders.client.hgetall(orders.totals(group))
    return found


# An order's way


def test_an_order_that_nobody_has_read_waits(orders: Orders) -> None:
    placed = orders.place(ORDER, once="a")
    assert orders.find(placed.id) == Progress("waiting")


def test_an_order_that_a_worker_has_is_pending(orders: Orders) -> None:
    own, _ = working(orders, failing(ValueError("no")))
    placed = orders.place(ORDER, once="a")
    own.turn()
    assert orders.find(placed.id) == Progress("pending", "w1", 1)


def test_an_order_is_billed_with_its_sum(orders: Orders) -> None:
    own, told = working(orders)
    placed = orders.place(ORDER, once="a")
    own.turn()
    assert orders.find(placed.id) == Progress("billed", "w1")
    assert totals(orders) == {b"orders": b"1", b"cents": b"1300"}
    assert told == ["done"]


def test_an_order_that_was_given_up_is_dead(orders: Orders) -> None:
    own, told = working(orders, failing(ValueError("no")))
    placed = orders.place(ORDER, once="a")
    for _ in range(6):
        own._chores_at = 0
        own.turn()
    assert orders.find(placed.id) == Progress("dead")
    [letter] = orders.letters(9)
    assert (letter.reason, letter.deliveries) == ("ValueError: no", 5)
    assert told.count("failed") == 5
    assert told.count("dead") == 1


def test_there_is_no_order_with_another_id(orders: Orders) -> None:
    assert orders.find("1-1") is None


def test_a_full_pipeline_refuses_an_order(
    orders: Orders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shop, "STREAM", BoundedStream(cap=0))
    with pytest.raises(StreamFull):
        orders.place(ORDER, once="a")


# What a worker does


def test_analytics_counts_what_was_sold(orders: Orders) -> None:
    own, _ = working(orders, JOBS[ANALYTICS], name="t1")
    own._job = Job(ANALYTICS, batch=25, rest_ms=0, do=jobs.count)
    for n in range(3):
        orders.place(ORDER, once=f"a{n}")
    own.turn()
    assert totals(orders, ANALYTICS) == {
        b"orders": b"3",
        b"product:7": b"6",
        b"product:8": b"3",
    }


def test_the_first_worker_makes_every_group(orders: Orders) -> None:
    working(orders)
    assert set(survey(orders).groups) == {BILLING, ANALYTICS}


def test_the_same_orders_fail_each_time_and_no_others(orders: Orders) -> None:
    half = msgspec.structs.replace(PLAIN, fail_percent=50)
    payload = msgspec.json.encode(ORDER)

    def fails(n: int) -> bool:
        delivery = Delivery(f"{n}-0", payload, n, f"{n}-0", 1)
        try:
            jobs.bill(delivery, half, lambda ms: None)
        except Declined:
            return True
        return False

    first, second = ([fails(n) for n in range(400)] for _ in range(2))
    assert first == second
    assert 140 < sum(first) < 260


def test_a_job_that_hangs_is_ended_and_the_next_order_is_billed(
    orders: Orders, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C3: the poison that hangs."""
    monkeypatch.setattr(worker, "_JOB_S", 0.05)
    seen = []

    def do(delivery: Delivery, now: Pace, work: jobs.Work) -> Mapping[str, int]:
        seen.append(delivery.number)
        if delivery.number == 1:
            time.sleep(60)
        return {"orders": 1}

    own, _ = working(orders, Job(BILLING, batch=1, rest_ms=0, do=do))
    orders.place(ORDER, once="a")
    good = orders.place(ORDER, once="b")
    for _ in range(8):
        own._chores_at = 0
        own.turn()
    assert seen.count(1) == 5
    assert orders.find(good.id) == Progress("billed", "w1")
    assert orders.letters(9)[0].reason == "TookTooLong: not done in 0.05 s"


def test_an_order_that_kills_its_worker_is_given_up(orders: Orders) -> None:
    """C3: nobody is left to say that it failed, so the deliveries are counted."""
    orders.place(ORDER, once="a")
    own, _ = working(orders, failing(KeyboardInterrupt()))  # type: ignore[arg-type]
    with pytest.raises(KeyboardInterrupt):
        own.turn()
    for _ in range(4):
        with pytest.raises(KeyboardInterrupt):
            working(orders, failing(KeyboardInterrupt()))  # type: ignore[arg-type]
    working(orders, failing(KeyboardInterrupt()))  # type: ignore[arg-type]
    [letter] = orders.letters(9)
    assert letter.deliveries == 5
    assert "never acknowledged" in letter.reason


def test_a_worker_that_was_told_to_stop_leaves_its_order_pending(
    orders: Orders,
) -> None:
    slow = msgspec.structs.replace(PLAIN, work_ms=4_000)
    own, told = working(orders, now=slow)
    orders.place(ORDER, once="a")
    before = signal.signal(signal.SIGALRM, own.stop)
    own._wait = lambda seconds: own.stop()  # type: ignore[method-assign]
    own.turn()
    signal.signal(signal.SIGALRM, before)
    assert told == []
    assert len(survey(orders).held) == 1


def test_claims_are_told_with_who_had_the_order(orders: Orders) -> None:
    dying, _ = working(orders, failing(ValueError("no")), name="w1")
    placed = orders.place(ORDER, once="a")
    dying.turn()
    other, told = working(orders, name="w2")
    other._chores_at = 0
    other.turn()
    [claim] = survey(orders).claims
    assert (claim.id, claim.taken_from, claim.by) == (placed.id, "w1", "w2")
    assert told == ["claimed", "done"]


def test_workers_that_ended_long_ago_are_forgotten(
    orders: Orders, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C5."""
    monkeypatch.setattr(worker, "_FORGOTTEN_MS", -1)
    own, _ = working(orders)
    for n in range(30):
        orders.client.xgroup_createconsumer(orders.stream, BILLING, f"gone-{n}")
    own._chores_at = 0
    own.turn()
    assert len(survey(orders).seen_ms) <= 20


def test_requeued_letters_are_billed(orders: Orders) -> None:
    own, _ = working(orders, failing(ValueError("no")))
    placed = orders.place(ORDER, once="a")
    for _ in range(6):
        own._chores_at = 0
        own.turn()
    assert orders.requeue(orders.letters(9)) == 1
    orders.client.xdel(orders.stream, placed.id)  # as a trim would
    assert orders.find(placed.id) == Progress("waiting")
    mended, _ = working(orders, name="w2")
    mended.turn()
    assert orders.find(placed.id) == Progress("billed", "w2")
    assert (orders.letters(9), totals(orders)[b"orders"]) == ([], b"1")


# The faders


def test_the_pace_is_read_as_it_was_written(tmp_path: Path) -> None:
    chosen = Pace(orders_per_min=120, work_ms=500, fail_percent=9, reclaim_ms=7_000)
    pace.write(tmp_path, chosen)
    assert pace.read(tmp_path) == chosen


@pytest.mark.parametrize("content", ["", "{", '{"work_ms": "x"}', '{"other": 1}', "[]"])
def test_a_pace_that_cannot_be_read_is_the_default(
    tmp_path: Path, content: str
) -> None:
    (tmp_path / "pace.json").write_text(content)
    assert pace.read(tmp_path) == Pace()


# Who is wanted


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    own = Fleet(tmp_path)
    own.prepare()
    return own


def names(fleet: Fleet) -> list[str]:
    return [wanted.name for wanted in fleet.wanted()]


def test_a_new_instance_has_three_who_bill_and_one_who_counts(fleet: Fleet) -> None:
    assert names(fleet) == ["tally-1", "worker-1", "worker-2", "worker-3"]


def test_what_was_chosen_is_there_at_the_next_start(fleet: Fleet) -> None:
    fleet.remove()
    fleet.prepare()
    assert names(fleet) == ["tally-1", "worker-1", "worker-2"]


def test_there_are_at_most_eight_and_at_least_one(fleet: Fleet) -> None:
    assert [fleet.add() for _ in range(6)][-2:] == ["worker-8", None]
    assert [fleet.remove() for _ in range(8)][-2:] == ["worker-2", None]
    assert names(fleet) == ["tally-1", "worker-1"]


def test_who_is_killed_is_down_and_comes_back_after_a_minute(
    fleet: Fleet, tmp_path: Path
) -> None:
    assert fleet.kill("worker-2")
    down = {w.name for w in fleet.wanted() if w.down_ms is not None}
    assert down == {"worker-2"}
    long_ago = time.time() - fleets.RESTORED_S - 1
    os.utime(tmp_path / "workers" / "worker-2.down", (long_ago, long_ago))
    assert not any(wanted.down_ms for wanted in fleet.wanted())


@pytest.mark.parametrize("name", ["", "worker-9", "../shop.db", "worker-1.down", "*"])
def test_nobody_else_can_be_killed(fleet: Fleet, name: str) -> None:
    assert not fleet.kill(name)
    assert not fleet.restart(name)
    assert len(names(fleet)) == 4


def test_files_of_others_are_nobody(fleet: Fleet, tmp_path: Path) -> None:
    (tmp_path / "workers" / "notes.txt").write_bytes(b"\xff")
    (tmp_path / "workers" / "someone").write_text("billing")
    assert names(fleet) == ["tally-1", "worker-1", "worker-2", "worker-3"]


# The tape


def receipt(cause: str, tone: str = "ok") -> Recording:
    command = Command((b"XACK", "stream", 7), reply=[b"\xff", {b"a": 1}])
    return Recording(
        cause, trips=[Trip("durable", 5, [command], us=120)], verdict=(tone, "told")
    )


@pytest.fixture
def reader(fleet: Fleet, tmp_path: Path) -> Reader:
    return Reader(tmp_path)


def causes(reader: Reader) -> list[str]:
    return [own.cause for own in reader.new()]


def test_what_a_worker_said_to_redis_is_read_once(
    reader: Reader, tmp_path: Path
) -> None:
    Pen(tmp_path, "worker-1").note(receipt("worker-1 handles order 7"))
    [found] = reader.new()
    assert (found.cause, found.verdict) == ("worker-1 handles order 7", ("ok", "told"))
    [trip] = found.trips
    assert trip.commands[0].args == ("XACK", "stream", 7)
    assert trip.commands[0].reply == ["\ufffd", {"a": 1}]
    assert reader.new() == []


def test_of_ordinary_receipts_one_is_shown_and_of_others_all(
    reader: Reader, tmp_path: Path
) -> None:
    pens = [Pen(tmp_path, f"worker-{n}") for n in (1, 2, 3)]
    for pen, tone in zip(pens, ("ok", "ok", "wait"), strict=True):
        pen.note(receipt(tone, tone))
    assert sorted(causes(reader)) == ["ok", "wait"]


def test_a_receipt_that_says_something_is_written_at_once(
    reader: Reader, tmp_path: Path
) -> None:
    pen = Pen(tmp_path, "worker-1")
    pen.note(receipt("first"))
    assert causes(reader) == ["first"]
    pen.note(receipt("ordinary"))
    assert causes(reader) == []
    pen.note(receipt("dead", "no"))
    assert causes(reader) == ["dead"]
    pen.close()
    assert list((tmp_path / "workers").glob("*.tape")) == []


def test_old_receipts_are_not_shown_to_who_comes_later(
    reader: Reader, tmp_path: Path
) -> None:
    old = receipt("old")
    old.started_at -= timedelta(seconds=30)
    Pen(tmp_path, "worker-1").note(old)
    assert causes(reader) == []


@pytest.mark.parametrize("content", [b"", b"{", b"[7]", b'[{"id": 1}]', b"\xff"])
def test_a_file_that_is_no_tape_is_left_out(
    reader: Reader, tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "workers" / "worker-1.tape").write_bytes(content)
    assert causes(reader) == []


def test_without_a_folder_nothing_is_written(tmp_path: Path) -> None:
    Pen(tmp_path, "worker-1").note(receipt("first"))
    assert list(tmp_path.iterdir()) == []


def test_a_worker_notes_what_it_handled_and_what_came_of_it(orders: Orders) -> None:
    notes: list[Recording] = []
    own = Worker(orders, JOBS[BILLING], "w1", pace=lambda: AT_ONCE, note=notes.append)
    own.begin()
    own.turn()  # nothing came
    preload(orders.client)
    orders.place(ORDER, once="a")
    own.turn()
    [note] = notes
    assert (note.cause, note.verdict) == ("w1 handles order 1", ("ok", "acked"))
    assert [trip.commands[0].args[0] for trip in note.trips] == [
        "XREADGROUP",
        "EVALSHA",
    ]
