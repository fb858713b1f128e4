"""The claims of streams, on fakeredis and on a real server."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis
from redis.exceptions import RedisError, ResponseError

from tests.conftest import wait_until
from webapp import keys
from webapp.connection.recorder import Recording, unrecorded
from webapp.patterns.streams.bounded_stream import (
    Appended,
    BoundedStream,
    StreamFull,
)
from webapp.patterns.streams.consumer_group import FIRST, ConsumerGroup, Delivery
from webapp.patterns.streams.dead_letters import DeadLetters

LIMITED = BoundedStream(cap=1_000, keep=2)
GROUP = ConsumerGroup(idle_ms=0, block_ms=1)
PATIENT = ConsumerGroup(idle_ms=60_000, block_ms=1)
LETTERS = DeadLetters(most_deliveries=5)


def key(family: keys.Family, rest: str = "") -> str:
    return keys.key("rpl", family, "orders", rest)


STREAM, DEAD = key(keys.STREAM), key(keys.DEAD)
TOTALS = key(keys.TOTALS, "billing")


def append(client: redis.Redis, once: str, payload: bytes = b"order") -> Appended:
    return LIMITED.append(
        client,
        STREAM,
        once=key(keys.ONCE, once),
        counter=key(keys.NUMBER),
        payload=payload,
    )


def fill(client: redis.Redis, count: int, group: str = "billing") -> list[str]:
    """A group, and so many entries that it has not read; their ids."""
    GROUP.join(client, STREAM, group=group)
    return [append(client, f"fill-{n}").id for n in range(count)]


def read(
    client: redis.Redis, consumer: str, count: int = 1, group: str = "billing"
) -> list[Delivery]:
    return GROUP.read(client, STREAM, group=group, consumer=consumer, count=count)


def outcome(delivery: Delivery, group: str = "billing") -> str:
    return key(keys.OUTCOME, f"{group}-{delivery.origin}")


def finish(client: redis.Redis, delivery: Delivery, group: str = "billing") -> bool:
    return GROUP.finish(
        client,
        STREAM,
        delivery,
        group=group,
        outcome=outcome(delivery, group),
        totals=key(keys.TOTALS, group),
        text="worker-1 3 1",
        add={"orders": 1, "cents": 4850},
    )


def claim(client: redis.Redis, consumer: str, **more: Any) -> Any:
    return GROUP.claim(client, STREAM, group="billing", consumer=consumer, **more)


def bury(client: redis.Redis, delivery: Delivery) -> bool:
    return LETTERS.bury(
        client,
        STREAM,
        delivery,
        group="billing",
        dead=DEAD,
        outcome=outcome(delivery),
        reason="the card was declined",
    )


def requeue(client: redis.Redis, letter: Any) -> str | None:
    return LETTERS.requeue(
        client,
        DEAD,
        letter,
        stream=STREAM,
        outcome=key(keys.OUTCOME, f"billing-{letter.origin}"),
    )


def billed(client: redis.Redis, group: str = "billing") -> int:
    return int(client.hget(key(keys.TOTALS, group), "orders") or 0)


def pending(client: redis.Redis, group: str = "billing") -> int:
    found: Any = client.xpending(STREAM, group)
    return int(found["pending"])


# Adding


def test_an_entry_has_an_id_and_the_next_number(redis_client: redis.Redis) -> None:
    first, second = append(redis_client, "a"), append(redis_client, "b")
    assert (first.number, second.number) == (1, 2)
    assert [id.decode() for id, _ in redis_client.xrange(STREAM)] == [
        first.id,
        second.id,
    ]


def test_one_idempotency_key_adds_one_entry(redis_client: redis.Redis) -> None:
    first, again = append(redis_client, "a"), append(redis_client, "a", b"another")
    assert (again.id, again.number) == (first.id, first.number)
    assert (first.repeated, again.repeated) == (False, True)
    assert redis_client.xlen(STREAM) == 1


def test_producers_that_send_one_key_at_once_add_one_entry(
    server_client: redis.Redis,
) -> None:
    with ThreadPoolExecutor(8) as pool:
        added = list(pool.map(lambda _: append(server_client, "a"), range(64)))
    assert len({one.id for one in added}) == 1
    assert sum(not one.repeated for one in added) == 1
    assert server_client.xlen(STREAM) == 1


def test_a_full_stream_refuses_what_is_new_and_knows_what_is_not(
    redis_client: redis.Redis,
) -> None:
    small = BoundedStream(cap=2)
    names = {"counter": key(keys.NUMBER), "payload": b"order"}
    for once in ("a", "b"):
        small.append(redis_client, STREAM, once=key(keys.ONCE, once), **names)
    with pytest.raises(StreamFull):
        small.append(redis_client, STREAM, once=key(keys.ONCE, "c"), **names)
    again = small.append(redis_client, STREAM, once=key(keys.ONCE, "a"), **names)
    assert again.repeated
    assert redis_client.xlen(STREAM) == 2


def test_appending_is_one_round_trip(
    redis_client: redis.Redis, recorded: Recording
) -> None:
    append(redis_client, "a")
    recorded.trips.clear()
    append(redis_client, "b")
    assert [len(trip.commands) for trip in recorded.trips] == [1]


# The group


def test_a_group_begins_with_the_oldest_entry(redis_client: redis.Redis) -> None:
    first = append(redis_client, "a")
    GROUP.join(redis_client, STREAM, group="billing")
    assert [one.id for one in read(redis_client, "w1")] == [first.id]


def test_joining_a_group_that_is_there_changes_nothing(
    redis_client: redis.Redis,
) -> None:
    fill(redis_client, 2)
    [first] = read(redis_client, "w1")
    GROUP.join(redis_client, STREAM, group="billing")
    assert [one.id for one in read(redis_client, "w1")] != [first.id]


def test_what_else_goes_wrong_when_joining_is_raised(
    redis_client: redis.Redis,
) -> None:
    other = key(keys.NUMBER)
    redis_client.set(other, "7", px=60_000)
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        GROUP.join(redis_client, other, group="billing")


def test_reading_without_the_group_is_raised(redis_client: redis.Redis) -> None:
    append(redis_client, "a")
    with pytest.raises(ResponseError, match="NOGROUP"):
        read(redis_client, "w1")


def test_an_entry_goes_to_one_consumer(redis_client: redis.Redis) -> None:
    ids = fill(redis_client, 4)
    found = [one.id for w in ("w1", "w2") for one in read(redis_client, w, count=2)]
    assert found == ids
    assert read(redis_client, "w3") == []


def test_each_group_gets_every_entry(redis_client: redis.Redis) -> None:
    fill(redis_client, 3)
    GROUP.join(redis_client, STREAM, group="analytics")
    assert len(read(redis_client, "w1", count=9)) == 3
    assert len(read(redis_client, "t1", count=9, group="analytics")) == 3


def test_a_delivery_says_what_and_which_time_it_is(redis_client: redis.Redis) -> None:
    GROUP.join(redis_client, STREAM, group="billing")
    added = append(redis_client, "a", b"two kettles")
    [found] = read(redis_client, "w1")
    assert found == Delivery(added.id, b"two kettles", 1, added.id, deliveries=1)


def test_reading_waits_no_longer_than_it_should(redis_client: redis.Redis) -> None:
    """C6: BLOCK ends before the client's own timeout would."""
    fill(redis_client, 0)
    assert ConsumerGroup().block_ms < 1_000
    for _ in range(3):
        assert read(redis_client, "w1") == []


@pytest.mark.parametrize(
    "fields",
    [
        {"other": "field"},
        {"payload": b"\xff", "number": "x" * 99, "origin": "../.."},
        {"payload": b"", "number": "-1", "origin": ""},
    ],
)
def test_what_others_wrote_into_the_stream_is_delivered_and_can_be_finished(
    redis_client: redis.Redis, fields: dict[str, Any]
) -> None:
    fill(redis_client, 0)
    id = redis_client.xadd(STREAM, fields)
    [found] = read(redis_client, "w1")
    assert (found.origin, found.number) == (id.decode(), 0)
    assert finish(redis_client, found)


# Effect and acknowledgement


def test_finishing_acknowledges_and_takes_effect(redis_client: redis.Redis) -> None:
    fill(redis_client, 1)
    [order] = read(redis_client, "w1")
    assert finish(redis_client, order)
    assert redis_client.hgetall(TOTALS) == {b"orders": b"1", b"cents": b"4850"}
    assert pending(redis_client) == 0
    assert redis_client.get(outcome(order)).startswith(b"worker-1 3 1 ")


def test_finishing_again_changes_nothing(redis_client: redis.Redis) -> None:
    fill(redis_client, 1)
    [order] = read(redis_client, "w1")
    assert [finish(redis_client, order) for _ in range(3)] == [True, False, False]
    assert billed(redis_client) == 1


def test_who_finishes_late_finds_it_done(redis_client: redis.Redis) -> None:
    """C2: a worker that was stopped while another took over."""
    fill(redis_client, 1)
    [stopped] = read(redis_client, "w1")
    [taken] = claim(redis_client, "w2").deliveries
    assert finish(redis_client, taken)
    assert not finish(redis_client, stopped)
    assert billed(redis_client) == 1


def test_who_finishes_first_after_a_claim_counts_once(
    redis_client: redis.Redis,
) -> None:
    fill(redis_client, 1)
    [slow] = read(redis_client, "w1")
    [taken] = claim(redis_client, "w2").deliveries
    assert finish(redis_client, slow)
    assert not finish(redis_client, taken)
    assert (billed(redis_client), pending(redis_client)) == (1, 0)


def test_a_group_that_was_made_anew_does_nothing_twice(
    redis_client: redis.Redis,
) -> None:
    fill(redis_client, 3)
    for order in read(redis_client, "w1", count=3):
        finish(redis_client, order)
    redis_client.xgroup_destroy(STREAM, "billing")
    GROUP.join(redis_client, STREAM, group="billing")
    again = read(redis_client, "w1", count=3)
    assert [finish(redis_client, order) for order in again] == [False] * 3
    assert (billed(redis_client), pending(redis_client)) == (3, 0)


def test_each_group_has_its_own_effect(redis_client: redis.Redis) -> None:
    fill(redis_client, 1)
    GROUP.join(redis_client, STREAM, group="analytics")
    for group in ("billing", "analytics"):
        [order] = read(redis_client, "w1", group=group)
        assert finish(redis_client, order, group)
    assert (billed(redis_client), billed(redis_client, "analytics")) == (1, 1)


def test_finishing_is_one_round_trip_in_one_slot(
    redis_client: redis.Redis, recorded: Recording
) -> None:
    fill(redis_client, 1)
    [order] = read(redis_client, "w1")
    recorded.trips.clear()
    finish(redis_client, order)
    assert [len(trip.commands) for trip in recorded.trips] == [1]


def test_workers_that_race_for_the_same_entries_count_each_once(
    server_client: redis.Redis,
) -> None:
    """C1 without the kills: everybody claims from everybody, all the time."""
    fill(server_client, 200)

    def work(name: str) -> int:
        done = 0
        with unrecorded():
            while billed(server_client) < 200:
                found = read(server_client, name, count=3)
                found += claim(server_client, name, count=3).deliveries
                done += sum(finish(server_client, order) for order in found)
        return done

    with ThreadPoolExecutor(4) as pool:
        done = sum(pool.map(work, ["w1", "w2", "w3", "w4"]))
    assert (done, billed(server_client), pending(server_client)) == (200, 200, 0)


# Taking over


def test_what_a_worker_had_before_it_ended_is_given_to_it_again(
    redis_client: redis.Redis,
) -> None:
    ids = fill(redis_client, 3)
    read(redis_client, "w1", count=2)
    read(redis_client, "w2")
    taken = PATIENT.resume(redis_client, STREAM, group="billing", consumer="w1")
    assert [one.id for one in taken.deliveries] == ids[:2]
    assert [one.deliveries for one in taken.deliveries] == [2, 2]


def test_a_claim_takes_what_was_idle_and_says_whose_it_was(
    redis_client: redis.Redis,
) -> None:
    fill(redis_client, 1)
    [order] = read(redis_client, "w1")
    [taken] = claim(redis_client, "w2").deliveries
    assert taken == Delivery(
        order.id, b"order", 1, order.id, deliveries=2, taken_from="w1"
    )


def test_a_claim_leaves_what_is_being_worked_on(redis_client: redis.Redis) -> None:
    fill(redis_client, 1)
    read(redis_client, "w1")
    taken = PATIENT.claim(redis_client, STREAM, group="billing", consumer="w2")
    assert taken.deliveries == []


def test_a_claim_goes_on_where_the_last_one_ended(redis_client: redis.Redis) -> None:
    ids = fill(redis_client, 5)
    read(redis_client, "w1", count=5)
    found, cursor = [], FIRST
    while True:
        taken = claim(redis_client, "w2", cursor=cursor, count=2)
        found += [one.id for one in taken.deliveries]
        cursor = taken.cursor
        if cursor == FIRST:
            break
    assert found == ids


def test_deleted_entries_are_acknowledged_and_counted_by_a_claim(
    redis_client: redis.Redis,
) -> None:
    """C8: no endless loop over what is no longer there."""
    ids = fill(redis_client, 4)
    read(redis_client, "w1", count=4)
    redis_client.xdel(STREAM, *ids[:3])
    taken = claim(redis_client, "w2")
    assert ([one.id for one in taken.deliveries], taken.gone) == ([ids[3]], 3)
    assert pending(redis_client) == 1
    assert claim(redis_client, "w2").gone == 0


def test_deleted_entries_are_acknowledged_and_counted_at_a_new_start(
    redis_client: redis.Redis,
) -> None:
    """C8."""
    ids = fill(redis_client, 3)
    read(redis_client, "w1", count=3)
    redis_client.xdel(STREAM, *ids[:2])
    taken = GROUP.resume(redis_client, STREAM, group="billing", consumer="w1")
    assert ([one.id for one in taken.deliveries], taken.gone) == ([ids[2]], 2)
    assert pending(redis_client) == 1


# Dead letters


def test_an_entry_is_handed_out_five_times_and_no_more(
    redis_client: redis.Redis,
) -> None:
    fill(redis_client, 1)
    [order] = read(redis_client, "w1")
    told = [(order.deliveries, LETTERS.is_last(order), LETTERS.is_spent(order))]
    for _ in range(5):
        [order] = claim(redis_client, "w2").deliveries
        told.append((order.deliveries, LETTERS.is_last(order), LETTERS.is_spent(order)))
    assert told == [(n, n >= 5, n > 5) for n in range(1, 7)]


def test_a_dead_letter_carries_the_entry_and_the_reason(
    redis_client: redis.Redis,
) -> None:
    GROUP.join(redis_client, STREAM, group="billing")
    added = append(redis_client, "a", b"\xff\x00 no order")
    [order] = read(redis_client, "w1")
    assert bury(redis_client, order)
    [letter] = LETTERS.letters(redis_client, DEAD, count=9)
    assert (letter.origin, letter.number, letter.group) == (added.id, 1, "billing")
    assert (letter.reason, letter.deliveries) == ("the card was declined", 1)
    assert redis_client.xrange(DEAD)[0][1][b"payload"] == b"\xff\x00 no order"
    assert pending(redis_client) == 0


def test_what_was_finished_is_not_buried(redis_client: redis.Redis) -> None:
    fill(redis_client, 1)
    [order] = read(redis_client, "w1")
    finish(redis_client, order)
    assert not bury(redis_client, order)
    assert redis_client.xlen(DEAD) == 0


def test_what_was_buried_is_not_finished(redis_client: redis.Redis) -> None:
    fill(redis_client, 1)
    [order] = read(redis_client, "w1")
    assert bury(redis_client, order)
    assert not finish(redis_client, order)
    assert (billed(redis_client), redis_client.xlen(DEAD)) == (0, 1)


def test_what_was_done_is_not_buried_by_a_group_that_was_made_anew(
    redis_client: redis.Redis,
) -> None:
    fill(redis_client, 1)
    [order] = read(redis_client, "w1")
    finish(redis_client, order)
    redis_client.xgroup_destroy(STREAM, "billing")
    GROUP.join(redis_client, STREAM, group="billing")
    [again] = read(redis_client, "w1")
    assert not bury(redis_client, again)
    assert (pending(redis_client), redis_client.xlen(DEAD)) == (0, 0)


def test_a_deleted_entry_is_acknowledged_and_not_buried(
    redis_client: redis.Redis,
) -> None:
    [id] = fill(redis_client, 1)
    [order] = read(redis_client, "w1")
    redis_client.xdel(STREAM, id)
    assert not bury(redis_client, order)
    assert (pending(redis_client), redis_client.xlen(DEAD)) == (0, 0)


def test_a_requeued_entry_comes_again_and_takes_effect_once_a_group(
    redis_client: redis.Redis,
) -> None:
    fill(redis_client, 1)
    GROUP.join(redis_client, STREAM, group="analytics")
    [order] = read(redis_client, "w1")
    bury(redis_client, order)
    [seen] = read(redis_client, "t1", group="analytics")
    assert finish(redis_client, seen, "analytics")
    [letter] = LETTERS.letters(redis_client, DEAD, count=9)
    id = requeue(redis_client, letter)
    [again] = read(redis_client, "w1")
    assert (again.id, again.origin) == (id, order.id)
    assert (again.payload, again.number) == (order.payload, order.number)
    assert finish(redis_client, again)
    [other] = read(redis_client, "t1", group="analytics")
    assert not finish(redis_client, other, "analytics")
    assert (billed(redis_client), billed(redis_client, "analytics")) == (1, 1)
    assert pending(redis_client, "analytics") == 0


def test_of_two_who_requeue_a_letter_one_does(redis_client: redis.Redis) -> None:
    fill(redis_client, 1)
    [order] = read(redis_client, "w1")
    bury(redis_client, order)
    [letter] = LETTERS.letters(redis_client, DEAD, count=9)
    assert [bool(requeue(redis_client, letter)) for _ in range(2)] == [True, False]
    assert (redis_client.xlen(STREAM), redis_client.xlen(DEAD)) == (2, 0)


def test_a_letter_that_dies_again_keeps_its_first_id(
    redis_client: redis.Redis,
) -> None:
    fill(redis_client, 1)
    [order] = read(redis_client, "w1")
    bury(redis_client, order)
    [letter] = LETTERS.letters(redis_client, DEAD, count=9)
    requeue(redis_client, letter)
    [again] = read(redis_client, "w1")
    bury(redis_client, again)
    [letter] = LETTERS.letters(redis_client, DEAD, count=9)
    assert (letter.origin, letter.group) == (order.id, "billing")
    [(_, fields)] = redis_client.xrange(DEAD)
    assert len(fields) == 6


def test_the_oldest_letters_go_where_there_are_too_many(
    redis_client: redis.Redis,
) -> None:
    fill(redis_client, 4)
    few = DeadLetters(longest=2)
    for order in read(redis_client, "w1", count=4):
        few.bury(
            redis_client,
            STREAM,
            order,
            group="billing",
            dead=DEAD,
            outcome=outcome(order),
            reason="no",
        )
    kept = few.letters(redis_client, DEAD, count=9)
    assert [letter.number for letter in kept] == [4, 3]


# Trimming


def test_a_trim_keeps_what_is_pending_or_unread(redis_client: redis.Redis) -> None:
    """C4: by MINID, below the lowest id that any group still needs."""
    ids = fill(redis_client, 8)
    orders = read(redis_client, "w1", count=5)
    for order in orders[:2] + orders[3:]:
        finish(redis_client, order)
    assert LIMITED.trim(redis_client, STREAM) == 2
    assert [id.decode() for id, _ in redis_client.xrange(STREAM)] == ids[2:]


def test_a_trim_waits_for_the_slowest_group(redis_client: redis.Redis) -> None:
    fill(redis_client, 8)
    GROUP.join(redis_client, STREAM, group="analytics")
    for order in read(redis_client, "w1", count=8):
        finish(redis_client, order)
    assert LIMITED.trim(redis_client, STREAM) == 0
    for order in read(redis_client, "t1", count=4, group="analytics"):
        finish(redis_client, order, "analytics")
    assert LIMITED.trim(redis_client, STREAM) == 3
    assert len(read(redis_client, "t1", count=9, group="analytics")) == 4


def test_a_trim_keeps_the_newest_for_who_wants_to_look(
    redis_client: redis.Redis,
) -> None:
    ids = fill(redis_client, 8)
    for order in read(redis_client, "w1", count=8):
        finish(redis_client, order)
    LIMITED.trim(redis_client, STREAM)
    assert [id.decode() for id, _ in redis_client.xrange(STREAM)] == ids[-2:]


def test_a_stream_without_a_group_is_not_trimmed(redis_client: redis.Redis) -> None:
    for n in range(8):
        append(redis_client, f"a{n}")
    assert LIMITED.trim(redis_client, STREAM) == 0


def test_there_is_nothing_to_trim_where_there_is_no_stream(
    redis_client: redis.Redis,
) -> None:
    assert LIMITED.trim(redis_client, STREAM) == 0


def test_a_backlog_is_refused_at_the_cap_and_not_trimmed(
    redis_client: redis.Redis,
) -> None:
    """C4 with a cap of 600 instead of 120,000."""
    overfill(redis_client, cap=600, produced=650)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_backlog_of_a_hundred_and_twenty_thousand_is_kept(
    server_client: redis.Redis,
) -> None:
    """C4."""
    overfill(server_client, cap=120_000, produced=150_000)


def overfill(client: redis.Redis, *, cap: int, produced: int) -> None:
    """Nobody works; what was added is there, and what was not was refused."""
    stream, refused = BoundedStream(cap=cap, keep=2), 0
    GROUP.join(client, STREAM, group="billing")
    with unrecorded():
        for n in range(produced):
            names = {"once": key(keys.ONCE, f"a{n}"), "counter": key(keys.NUMBER)}
            try:
                stream.append(client, STREAM, payload=b"order", **names)
            except StreamFull:
                refused += 1
        assert stream.trim(client, STREAM) == 0
    assert (client.xlen(STREAM), refused) == (cap, produced - cap)


# Leaving


def test_a_consumer_with_pending_entries_is_not_removed(
    redis_client: redis.Redis,
) -> None:
    """C5."""
    fill(redis_client, 1)
    [order] = read(redis_client, "w1")
    leave = {"group": "billing", "consumer": "w1"}
    assert not GROUP.leave(redis_client, STREAM, **leave)
    finish(redis_client, order)
    assert GROUP.leave(redis_client, STREAM, **leave)
    assert redis_client.xinfo_consumers(STREAM, "billing") == []


def test_consumers_that_come_and_go_lose_nothing_and_leave_no_name(
    redis_client: redis.Redis,
) -> None:
    """C5 with 50 names; with 500 in `make test-all`."""
    churn(redis_client, 50)


@pytest.mark.slow
def test_five_hundred_consumers_lose_nothing(redis_client: redis.Redis) -> None:
    """C5."""
    churn(redis_client, 500)


def churn(client: redis.Redis, names: int) -> None:
    """Every third one is killed with an entry in hand."""
    with unrecorded():
        fill(client, names)
        for n in range(names):
            name = f"w-{n}"
            [order] = read(client, name)
            if n % 3:
                finish(client, order)
            GROUP.leave(client, STREAM, group="billing", consumer=name)
        cursor = FIRST
        while True:
            taken = claim(client, "last", cursor=cursor)
            for order in taken.deliveries:
                finish(client, order)
            cursor = taken.cursor
            if cursor == FIRST:
                break
        for consumer in client.xinfo_consumers(STREAM, "billing"):
            name = consumer["name"].decode()
            GROUP.leave(client, STREAM, group="billing", consumer=name)
    assert (billed(client), pending(client)) == (names, 0)
    assert client.xinfo_consumers(STREAM, "billing") == []


# Faults


def test_a_server_that_forgets_its_scripts_is_told_them_again(
    server_client: redis.Redis,
) -> None:
    """A8 with 200 entries instead of 20,000, flushed all the time by another."""
    flush(server_client, 200)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_twenty_thousand_calls_survive_script_flush(
    server_client: redis.Redis,
) -> None:
    """A8: 10,000 entries, each appended and finished."""
    flush(server_client, 10_000)


def flush(client: redis.Redis, entries: int) -> None:
    ended = threading.Event()
    flushed = 0

    def forget() -> None:
        nonlocal flushed
        with unrecorded():
            while not ended.wait(0.05) or not flushed:
                client.script_flush()
                flushed += 1

    forgetful = threading.Thread(target=forget)
    forgetful.start()
    try:
        with unrecorded():
            GROUP.join(client, STREAM, group="billing")
            for n in range(entries):
                append(client, f"a{n}")
                [order] = read(client, "w1")
                assert finish(client, order)
                LIMITED.trim(client, STREAM)
    finally:
        ended.set()
        forgetful.join()
    assert (billed(client), pending(client)) == (entries, 0)


@pytest.mark.parametrize("act", ["append", "read", "claim", "finish", "trim"])
def test_without_redis_it_fails_closed(redis_down: redis.Redis, act: str) -> None:
    acts = {
        "append": lambda: append(redis_down, "a"),
        "read": lambda: read(redis_down, "w1"),
        "claim": lambda: claim(redis_down, "w1"),
        "finish": lambda: finish(redis_down, Delivery("1-1", b"", 1, "1-1", 1)),
        "trim": lambda: LIMITED.trim(redis_down, STREAM),
    }
    with pytest.raises(RedisError):
        acts[act]()


def test_after_an_outage_a_worker_has_what_it_had(line: Any) -> None:
    client = line.client
    fill(client, 2)
    [order] = read(client, "w1")
    line.cut()
    with pytest.raises(RedisError):
        finish(client, order)
    line.mend()
    wait_until(lambda: not line.breaker.is_open, within_s=20)
    [again] = GROUP.resume(client, STREAM, group="billing", consumer="w1").deliveries
    assert finish(client, again)
    assert billed(client) == 1
