"""The claims of the response cache, on fakeredis and on a real server."""

import msgspec
import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from tests.patterns.conftest import Line
from webapp import keys
from webapp.connection.recorder import Recording, recording
from webapp.patterns.response_cache import (
    Answer,
    Names,
    ResponseCache,
    canonical,
    digest,
)

CACHE = ResponseCache()
GENERATION = keys.key("rpl", keys.GENERATION, "products")


def names(**parameters: str | int | None) -> Names:
    rest = digest(parameters)
    return Names(
        GENERATION,
        answer=keys.key("rpl", keys.RESPONSE, "products", rest),
        lease=keys.key("rpl", keys.RESPONSE_LEASE, "products", rest),
    )


FIRST, SECOND = names(limit=20), names(limit=50)


class Page(msgspec.Struct):
    items: list[int]


class Endpoint:
    """What computes the answer, and how often it did."""

    def __init__(self, body: bytes = b'{"items":[1]}') -> None:
        self.body = body
        self.computed = 0

    def compute(self) -> bytes:
        self.computed += 1
        return self.body


def check(body: bytes) -> None:
    try:
        msgspec.json.decode(body, type=Page)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ValueError from error


def read(client: redis.Redis, own: Names, endpoint: Endpoint) -> Answer:
    return CACHE.read(client, own, compute=endpoint.compute, check=check)


def test_the_second_who_asks_gets_what_was_computed_for_the_first(
    redis_client: redis.Redis,
) -> None:
    endpoint = Endpoint()
    assert read(redis_client, FIRST, endpoint) == Answer(endpoint.body, "miss")
    assert read(redis_client, FIRST, endpoint) == Answer(endpoint.body, "hit")
    assert endpoint.computed == 1


def test_an_answer_is_kept_for_five_minutes(redis_client: redis.Redis) -> None:
    read(redis_client, FIRST, Endpoint())
    assert 299_000 < redis_client.pttl(FIRST.answer) <= 330_000
    assert redis_client.pttl(GENERATION) > redis_client.pttl(FIRST.answer)


def test_a_hit_is_one_command_and_a_miss_three_round_trips(
    redis_client: redis.Redis,
) -> None:
    trips = []
    for own in (FIRST, SECOND, SECOND):
        with recording(Recording("read")) as sent:
            read(redis_client, own, Endpoint())
        trips.append([c.args[0] for trip in sent.trips for c in trip.commands])
    assert trips[0] == ["MGET", "SET", "EVALSHA", "EVALSHA"]
    assert trips[1] == ["MGET", "EVALSHA", "EVALSHA"]
    assert trips[2] == ["MGET"]


def test_one_command_voids_all_answers_of_the_route(
    redis_client: redis.Redis, recorded: Recording
) -> None:
    for own in (FIRST, SECOND):
        read(redis_client, own, Endpoint())
    before = len(recorded.trips)
    CACHE.void(redis_client, GENERATION)
    assert len(recorded.trips) == before + 1
    for own in (FIRST, SECOND):
        assert read(redis_client, own, Endpoint(b'{"items":[2]}')) == Answer(
            b'{"items":[2]}', "miss"
        )


def test_what_was_computed_before_a_write_does_not_count_after_it(
    redis_client: redis.Redis,
) -> None:
    class Slow(Endpoint):
        def compute(self) -> bytes:
            CACHE.void(redis_client, GENERATION)
            return super().compute()

    assert read(redis_client, FIRST, Slow(b'{"items":[]}')).outcome == "miss"
    assert read(redis_client, FIRST, Endpoint()) == Answer(b'{"items":[1]}', "miss")


def test_a_lost_generation_revives_nothing(redis_client: redis.Redis) -> None:
    """FAULTS D4, for answers: a lost generation is a new random one."""
    for _ in range(20):
        endpoint = Endpoint()
        read(redis_client, FIRST, endpoint)
        redis_client.delete(GENERATION)  # evicted
        assert read(redis_client, FIRST, endpoint).outcome == "miss"


def test_two_who_begin_a_generation_have_the_same(
    redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    read(redis_client, FIRST, Endpoint())
    kept = redis_client.get(GENERATION)
    assert CACHE._begin(redis_client, FIRST) == kept


@pytest.mark.parametrize("key", [FIRST.generation, FIRST.answer, FIRST.lease])
def test_a_key_of_another_type_is_removed(redis_client: redis.Redis, key: str) -> None:
    redis_client.hset(key, "a", "b")
    redis_client.pexpire(key, 9_000)
    endpoint = Endpoint()
    assert read(redis_client, FIRST, endpoint).body == endpoint.body
    assert read(redis_client, FIRST, endpoint).body == endpoint.body
    redis_client.delete(key)


POISON = [
    b"", b"null", b"{", b"[]", b'{"items":["x"]}', b"\xff\xfe",
    b"[" * 100_000 + b"]" * 100_000, b'{"items":[' + b"9" * 5_000 + b"]}",
    b'{"items":[NaN]}', b"cos\nsystem\n(S'false'\ntR.", b"x\x9c" + bytes(1_000),
]  # fmt: skip


def test_a_poisoned_answer_is_removed_and_computed_anew(
    redis_client: redis.Redis,
) -> None:
    """FAULTS D5, for answers: with the right generation before it, and without."""
    read(redis_client, FIRST, Endpoint())
    generation = redis_client.get(GENERATION)
    for poison in POISON:
        for before in (b"", generation + b":"):
            redis_client.set(FIRST.answer, before + poison, px=60_000)
            endpoint = Endpoint()
            assert read(redis_client, FIRST, endpoint).body == endpoint.body
            assert read(redis_client, FIRST, endpoint).outcome == "hit"
            assert endpoint.computed == 1


def test_without_redis_the_answer_is_computed_once(redis_down: redis.Redis) -> None:
    endpoint = Endpoint()
    assert read(redis_down, FIRST, endpoint) == Answer(endpoint.body, "bypass")
    assert endpoint.computed == 1


def test_without_redis_a_writer_is_told(redis_down: redis.Redis) -> None:
    with pytest.raises(redis.RedisError):
        CACHE.void(redis_down, GENERATION)


def test_a_store_that_fails_costs_nobody_an_answer(line: Line) -> None:
    class Cut(Endpoint):
        def compute(self) -> bytes:
            line.cut()
            return super().compute()

    endpoint = Cut()
    assert read(line.client, FIRST, endpoint) == Answer(endpoint.body, "miss")
    assert endpoint.computed == 1


def test_equal_bodies_have_equal_etags_and_others_do_not() -> None:
    assert Answer(b"a", "hit").etag == Answer(b"a", "miss").etag
    assert Answer(b"a", "hit").etag != Answer(b"b", "hit").etag


def test_the_order_of_parameters_does_not_matter() -> None:
    assert canonical({"limit": 20, "category": "a b", "after": None}) == (
        "category=a+b&limit=20"
    )
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})


@given(*[st.dictionaries(st.text(max_size=8), st.text(max_size=8), max_size=4)] * 2)
def test_other_parameters_have_another_name(
    one: dict[str, str], other: dict[str, str]
) -> None:
    assert (digest(one) == digest(other)) == (one == other)
