"""The claims of publish/subscribe, on fakeredis and on a real server."""

import signal
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest
import redis
from redis.exceptions import RedisError

from tests.conftest import RedisProcess, wait_until
from webapp import keys
from webapp.connection.urls import probe_client
from webapp.patterns.pub_sub import Bad, Heard, Joined, Lost, Message, PubSub, place

STREAM = keys.key("rpl", keys.FEED, "shop")
FEED = PubSub(wait_ms=20, heartbeat_ms=10_000)

Listener = Generator[Heard[int], None, None]


def publish(client: redis.Redis, *numbers: int, feed: PubSub = FEED) -> list[str]:
    """Their ids."""
    return [
        feed.publish(client, STREAM, payload=b"%d" % number).id for number in numbers
    ]


def listen(client: redis.Redis, after: str | None = None, feed: PubSub = FEED) -> Any:
    """A listener that has joined; to be closed."""
    listener = feed.listen(client, STREAM, decode=int, after=after)
    joined = heard(listener)
    assert isinstance(joined, Joined)
    return closing(listener)


def heard(listener: Listener) -> Heard[int]:
    """The next that is not silence, past losses."""
    return wait_until(lambda: next(listener))


def values(listener: Iterator[Heard[int]], count: int) -> list[int]:
    found: list[int] = []
    while len(found) < count:
        one = wait_until(lambda: next(listener))
        if isinstance(one, Message):
            found.append(one.value)
    return found


def silent(listener: Listener) -> bool:
    return [next(listener) for _ in range(3)] == [None] * 3


def test_a_message_is_kept_with_a_ttl_and_told(redis_client: redis.Redis) -> None:
    with listen(redis_client):
        published = FEED.publish(redis_client, STREAM, payload=b"1")
    assert published.receivers == 1
    assert redis_client.xrange(STREAM) == [(published.id.encode(), {b"message": b"1"})]
    assert 0 < redis_client.pttl(STREAM) <= FEED.ttl_ms


def test_a_listener_hears_messages_in_order_and_once(redis_client: redis.Redis) -> None:
    with listen(redis_client) as listener:
        publish(redis_client, 1, 2, 3)
        assert values(listener, 3) == [1, 2, 3]
        assert silent(listener)


def test_without_an_id_a_listener_hears_only_what_is_new(
    redis_client: redis.Redis,
) -> None:
    publish(redis_client, 1)
    with listen(redis_client) as listener:
        publish(redis_client, 2)
        assert values(listener, 1) == [2]


def test_a_listener_first_catches_up(redis_client: redis.Redis) -> None:
    first, *_ = publish(redis_client, 1, 2, 3)
    listener = FEED.listen(redis_client, STREAM, decode=int, after=first)
    with closing(listener):
        assert heard(listener) == Joined(first, missed=2, whole=True)
        publish(redis_client, 4)
        assert values(listener, 3) == [2, 3, 4]


class Busy(redis.Redis):
    """A client to whom a message comes between SUBSCRIBE and XRANGE."""

    def pipeline(self, *args: Any, **options: Any) -> Any:
        publish(self, 7)
        return super().pipeline(*args, **options)


def test_a_message_that_comes_while_joining_is_heard_once(
    redis_client: redis.Redis,
) -> None:
    client = Busy(connection_pool=redis_client.connection_pool)
    with listen(client) as listener:
        assert values(listener, 1) == [7]
        assert silent(listener)


def test_a_message_that_did_not_come_follows_with_the_next(
    redis_client: redis.Redis,
) -> None:
    with listen(redis_client) as listener:
        publish(redis_client, 1)
        assert values(listener, 1) == [1]
        redis_client.xadd(STREAM, {"message": b"2"})  # kept, and not passed on
        publish(redis_client, 3)
        assert heard(listener) == Lost("a message did not come")
        assert values(listener, 2) == [2, 3]


def test_a_bad_message_is_answered_as_such_and_the_next_one_comes(
    redis_client: redis.Redis,
) -> None:
    with listen(redis_client) as listener:
        bad = FEED.publish(redis_client, STREAM, payload=b"{broken")
        publish(redis_client, 2)
        first = heard(listener)
        assert isinstance(first, Bad)
        assert first.id == bad.id
        assert values(listener, 1) == [2]


def test_what_others_say_on_the_channel_is_bad_and_moves_nothing(
    redis_client: redis.Redis,
) -> None:
    with listen(redis_client) as listener:
        redis_client.publish(STREAM, b"hello there")
        assert heard(listener) == Bad("", "not from publish")
        publish(redis_client, 2)
        assert values(listener, 1) == [2]


def test_the_stream_keeps_only_the_newest(redis_client: redis.Redis) -> None:
    publish(redis_client, *range(5), feed=replace(FEED, longest=3))
    newest = FEED.latest(redis_client, STREAM, decode=int, count=9)
    assert [m.value for m in newest if isinstance(m, Message)] == [4, 3, 2]


def test_a_replay_says_whether_it_reaches_back(redis_client: redis.Redis) -> None:
    feed = replace(FEED, longest=3)
    ids = publish(redis_client, *range(5), feed=feed)
    for id, count, whole in [(ids[0], 3, False), (ids[2], 2, True), (ids[4], 0, True)]:
        replay = feed.replay(redis_client, STREAM, decode=int, after=id)
        assert (len(replay.messages), replay.whole) == (count, whole)


def test_facts_count_listeners_and_what_is_kept(redis_client: redis.Redis) -> None:
    with listen(redis_client):
        publish(redis_client, 1, 2)
        facts = FEED.facts(redis_client, STREAM)
    assert (facts.subscribers, facts.kept) == (1, 2)


def test_who_leaves_is_no_longer_subscribed(redis_client: redis.Redis) -> None:
    with listen(redis_client):
        pass
    wait_until(lambda: FEED.facts(redis_client, STREAM).subscribers == 0)


def test_a_cut_connection_is_told_and_what_was_missed_follows(
    server_client: redis.Redis,
) -> None:
    with listen(server_client) as listener:
        publish(server_client, 1)
        assert values(listener, 1) == [1]
        server_client.client_kill_filter(_type="pubsub")
        assert isinstance(heard(listener), Lost)
        publish(server_client, 2, 3)
        again = heard(listener)
        assert isinstance(again, Joined)
        assert again.missed == 2
        assert values(listener, 2) == [2, 3]


def test_a_server_that_falls_silent_is_found_out(redis_process: RedisProcess) -> None:
    feed = replace(FEED, heartbeat_ms=500)
    client = probe_client(redis_process.url)
    with listen(client, feed=feed) as listener:
        redis_process.send(signal.SIGSTOP)
        assert heard(listener) == Lost("no PONG from the server")
        redis_process.send(signal.SIGCONT)
        wait_until(lambda: isinstance(next(listener), Joined))
    client.close()


def test_a_healthy_silence_is_no_loss(redis_client: redis.Redis) -> None:
    with listen(redis_client, feed=replace(FEED, heartbeat_ms=500)) as listener:
        assert [next(listener) for _ in range(80)] == [None] * 80


@pytest.mark.timeout(60)
def test_nothing_is_missed_or_doubled_over_cuts_and_a_restart(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """H9 with 300 messages, 6 cuts and 1 restart instead of 100,000, 20 and 2."""
    options = "--appendonly", "yes", "--appendfsync", "always"
    server = RedisProcess(tmp_path_factory.mktemp("aof"), options=options)
    server.start()
    client, listener = server.client(), probe_client(server.url)
    try:
        with listen(listener) as told:
            found: list[int] = []
            for n in range(300):
                if n == 150:
                    server.kill()
                    server.start()
                elif n % 50 == 25:
                    client.client_kill_filter(_type="pubsub")
                publish(client, n)
                one = next(told)
                found += [one.value] if isinstance(one, Message) else []
            found += values(told, 300 - len(found))
            assert found == list(range(300))
    finally:
        client.close()
        listener.close()
        server.kill()


def test_redis_down_is_raised_to_a_publisher(redis_down: redis.Redis) -> None:
    with pytest.raises(RedisError):
        FEED.publish(redis_down, STREAM, payload=b"1")
    with pytest.raises(RedisError):
        FEED.replay(redis_down, STREAM, decode=int, after="0-0")


def test_redis_down_is_told_to_a_listener_which_keeps_trying(
    redis_down: redis.Redis, line: Any
) -> None:
    listener = FEED.listen(redis_down, STREAM, decode=int)
    with closing(listener):
        assert isinstance(next(listener), Lost)
        assert isinstance(next(listener), Lost)
        line.mend()
        wait_until(lambda: isinstance(next(listener), Joined))


def test_ids_are_compared_as_numbers() -> None:
    assert place("999-10") > place("999-9")
    assert place("1000-0") > place("999-10")
