"""The Lua loader, on fakeredis and on a real server."""

import pytest
import redis

from webapp import keys
from webapp.connection.recorder import Recording, recording
from webapp.scripts import LuaScript, WrongCount, load, preload

VALUE = keys.key("rpl", keys.PRODUCT, 7)
LEASE = keys.key("rpl", keys.LEASE, 7)


@pytest.fixture
def fetch() -> LuaScript:
    return load("cache_aside/fetch")


def names(recorded: Recording) -> list[str]:
    return [command.args[0] for trip in recorded.trips for command in trip.commands]


@pytest.mark.parametrize(
    ("script_keys", "args"),
    [([VALUE], ["t", 10]), ([VALUE, LEASE], ["t"]), ([VALUE, LEASE], ["t", 10, 1])],
)
def test_a_call_with_a_wrong_count_is_refused_before_it_is_sent(
    redis_client: redis.Redis,
    recorded: Recording,
    fetch: LuaScript,
    script_keys: list[str],
    args: list[object],
) -> None:
    with pytest.raises(WrongCount, match="takes 2 keys and 2 arguments"):
        fetch(redis_client, script_keys, args)
    assert recorded.trips == []


def test_a_known_script_is_one_evalsha(
    redis_client: redis.Redis, recorded: Recording, fetch: LuaScript
) -> None:
    preload(redis_client)
    recorded.trips.clear()
    fetch(redis_client, [VALUE, LEASE], ["token", 1000])
    assert names(recorded) == ["EVALSHA"]


def test_a_forgotten_script_is_sent_again_once(
    redis_client: redis.Redis, recorded: Recording, fetch: LuaScript
) -> None:
    redis_client.script_flush()
    recorded.trips.clear()
    assert fetch(redis_client, [VALUE, LEASE], ["token", 1000]) == [b"token"]
    assert fetch(redis_client, [VALUE, LEASE], ["other", 1000]) == [b"token"]
    assert names(recorded) == ["EVALSHA", "EVAL", "EVALSHA"]


def test_see_inside_shows_the_calls_with_their_replies(
    redis_client: redis.Redis, fetch: LuaScript
) -> None:
    with recording(Recording("watched", see_inside=True)) as watched:
        fetch(redis_client, [VALUE, LEASE], ["token", 1000])
    [trip] = watched.trips
    seen = [(call.args, call.reply) for call in trip.commands[0].calls or []]
    value, lease = VALUE.encode(), LEASE.encode()
    assert seen == [
        ((b"GET", value), None),
        ((b"GET", lease), None),
        ((b"SET", lease, b"token", b"PX", 1000), b"OK"),
    ]


def test_see_inside_changes_no_reply(
    redis_client: redis.Redis, fetch: LuaScript
) -> None:
    plain = fetch(redis_client, [VALUE, LEASE], ["token", 1000])
    redis_client.delete(LEASE)
    with recording(Recording("watched", see_inside=True)) as watched:
        assert fetch(redis_client, [VALUE, LEASE], ["token", 1000]) == plain
    assert watched.trips[0].commands[0].reply == plain


def test_see_inside_raises_what_the_script_raises(
    redis_client: redis.Redis, fetch: LuaScript
) -> None:
    redis_client.lpush(VALUE, "x")
    redis_client.pexpire(VALUE, 1000)
    with (
        recording(Recording("watched", see_inside=True)) as watched,
        pytest.raises(redis.ResponseError, match="WRONGTYPE"),
    ):
        fetch(redis_client, [VALUE, LEASE], ["token", 1000])
    assert "WRONGTYPE" in (watched.trips[0].commands[0].error or "")
