"""The claims of transactions, on fakeredis and on a real server."""

import contextvars
import threading
from collections.abc import Callable

import pytest
import redis
from redis.exceptions import RedisError, ResponseError

from webapp import keys
from webapp.connection.recorder import Recording
from webapp.patterns.transactions import Moved, Pair, TooContended, Transfers

PAIR = Pair(*(keys.key("rpl", keys.ACCOUNT, "test", name) for name in ("Anna", "Ben")))
TRANSFERS = Transfers(ttl_ms=60_000, tries=5)

Move = Callable[..., Moved]
every = pytest.mark.parametrize("way", ["queued", "watched", "scripted"])
careful = pytest.mark.parametrize("way", ["watched", "scripted"])


def open_with(client: redis.Redis, amount: int) -> None:
    client.set(PAIR.giver, amount, px=60_000)


def balances(client: redis.Redis) -> list[int]:
    return [int(client.get(key) or 0) for key in (PAIR.giver, PAIR.taker)]


def move(client: redis.Redis, way: str, amount: int) -> Moved:
    return getattr(TRANSFERS, way)(client, PAIR, amount=amount)


@every
def test_what_one_gives_the_other_has(redis_client: redis.Redis, way: str) -> None:
    open_with(redis_client, 100)
    assert move(redis_client, way, 30) == Moved(True, 70)
    assert balances(redis_client) == [70, 30]


@every
def test_a_transfer_begins_both_ttls_anew(redis_client: redis.Redis, way: str) -> None:
    open_with(redis_client, 100)
    redis_client.pexpire(PAIR.giver, 1_000)
    move(redis_client, way, 30)
    for key in (PAIR.giver, PAIR.taker):
        assert 50_000 < redis_client.pttl(key) <= 60_000


@careful
@pytest.mark.parametrize("amount", [101, 1_000_000])
def test_what_is_not_there_is_not_taken(
    redis_client: redis.Redis, way: str, amount: int
) -> None:
    open_with(redis_client, 100)
    assert move(redis_client, way, amount) == Moved(False, 100)
    assert balances(redis_client) == [100, 0]


@careful
def test_all_that_is_there_can_be_taken(redis_client: redis.Redis, way: str) -> None:
    open_with(redis_client, 100)
    assert move(redis_client, way, 100) == Moved(True, 0)


@careful
def test_an_account_that_ended_is_empty(redis_client: redis.Redis, way: str) -> None:
    assert move(redis_client, way, 1) == Moved(False, 0)


def test_a_queue_without_a_look_overdraws(redis_client: redis.Redis) -> None:
    open_with(redis_client, 100)
    assert move(redis_client, "queued", 130) == Moved(True, -30)


@pytest.mark.parametrize(("way", "trips"), [("queued", 1), ("scripted", 1)])
def test_these_cost_one_round_trip(
    redis_client: redis.Redis, recorded: Recording, way: str, trips: int
) -> None:
    open_with(redis_client, 100)
    recorded.trips.clear()
    move(redis_client, way, 1)
    assert len(recorded.trips) == trips


def test_a_watched_try_costs_three_round_trips(
    redis_client: redis.Redis, recorded: Recording
) -> None:
    open_with(redis_client, 100)
    recorded.trips.clear()
    move(redis_client, "watched", 1)
    sent = [[c.args[0] for c in trip.commands] for trip in recorded.trips]
    assert [names[0] for names in sent] == ["WATCH", "GET", "MULTI"]


def test_a_look_that_was_overtaken_moves_nothing(redis_client: redis.Redis) -> None:
    open_with(redis_client, 100)
    with TRANSFERS.look(redis_client, PAIR) as seen:
        redis_client.decrby(PAIR.giver, 1)
        assert not seen.move(30)
    assert balances(redis_client) == [99, 0]


def test_a_balance_that_was_changed_and_changed_back_counts_as_changed(
    redis_client: redis.Redis,
) -> None:
    open_with(redis_client, 100)
    with TRANSFERS.look(redis_client, PAIR) as seen:
        redis_client.incrby(PAIR.giver, 1)
        redis_client.decrby(PAIR.giver, 1)
        assert not seen.move(30)


def test_an_overtaken_transfer_is_tried_again(
    redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_with(redis_client, 100)
    _meddle(redis_client, monkeypatch, times=2)
    assert move(redis_client, "watched", 30) == Moved(True, 68, tries=3)
    assert balances(redis_client) == [68, 30]


def test_it_ends_after_so_many_tries_and_has_done_nothing(
    redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_with(redis_client, 100)
    _meddle(redis_client, monkeypatch, times=5)
    with pytest.raises(TooContended, match="5 tries"):
        move(redis_client, "watched", 30)
    assert balances(redis_client) == [95, 0]


def _meddle(client: redis.Redis, monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    """Somebody takes 1 between look and EXEC, so many times."""
    look, left = Transfers.look, iter(range(times))

    def overtaken(self: Transfers, client: redis.Redis, pair: Pair):  # type: ignore[no-untyped-def]
        block = look(self, client, pair)
        seen = block.__enter__()
        if next(left, None) is not None:
            client.decrby(pair.giver, 1)
        return _Entered(block, seen)

    monkeypatch.setattr(Transfers, "look", overtaken)


class _Entered:
    def __init__(self, block, seen) -> None:  # type: ignore[no-untyped-def]
        self.block, self.seen = block, seen

    def __enter__(self):  # type: ignore[no-untyped-def]
        return self.seen

    def __exit__(self, *raised: object) -> None:
        self.block.__exit__(*raised)


def test_a_script_that_cannot_give_takes_nothing(redis_client: redis.Redis) -> None:
    open_with(redis_client, 100)
    redis_client.lpush(PAIR.taker, "no number")
    with pytest.raises(ResponseError):
        move(redis_client, "scripted", 30)
    assert int(redis_client.get(PAIR.giver) or 0) == 100
    redis_client.delete(PAIR.taker)


@careful
def test_many_at_once_make_and_lose_no_money(
    server_client: redis.Redis, way: str
) -> None:
    """8 threads want 240 from 100; nobody gets what is not there."""
    open_with(server_client, 100)
    patient = Transfers(ttl_ms=60_000, tries=10_000)
    done: list[Moved] = []

    def work() -> None:
        for _ in range(10):
            done.append(getattr(patient, way)(server_client, PAIR, amount=3))

    threads = [
        threading.Thread(target=contextvars.copy_context().run, args=(work,))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(done) == 80
    assert sum(moved.done for moved in done) == 33
    assert balances(server_client) == [1, 99]


@every
def test_without_redis_it_raises(redis_down: redis.Redis, way: str) -> None:
    with pytest.raises(RedisError):
        move(redis_down, way, 1)
