"""The claims of the activity feed, on fakeredis and on a real server."""

import threading

import pytest
import redis
from redis.exceptions import RedisError

from tests.conftest import wait_until
from webapp import keys
from webapp.connection.embedded import EmbeddedServer
from webapp.connection.recorder import Recording, unrecorded
from webapp.connection.urls import client_for
from webapp.patterns.activity_feed import ActivityFeed, Page

FEED = ActivityFeed(longest=5, ttl_ms=60_000)
KEY = keys.key("rpl", keys.ACTIVITY, "guest-1")


def fill(client: redis.Redis, count: int, feed: ActivityFeed = FEED) -> list[str]:
    """So many entries were added; the newest first, as the list has them."""
    entries = [f"view:{n}:1" for n in range(1, count + 1)]
    for entry in entries:
        feed.add(client, KEY, entry=entry)
    return entries[::-1]


def listed(client: redis.Redis) -> list[str]:
    return [entry.decode() for entry in client.lrange(KEY, 0, -1)]


# Adding


def test_the_newest_is_in_front(redis_client: redis.Redis) -> None:
    fill(redis_client, 3)
    assert listed(redis_client) == ["view:3:1", "view:2:1", "view:1:1"]


def test_a_list_never_grows_past_its_cap(redis_client: redis.Redis) -> None:
    newest = fill(redis_client, 12)
    assert listed(redis_client) == newest[:5]


def test_an_add_says_how_many_are_kept(redis_client: redis.Redis) -> None:
    kept = [FEED.add(redis_client, KEY, entry=f"view:{n}:1") for n in range(7)]
    assert kept == [1, 2, 3, 4, 5, 5, 5]


def test_every_add_begins_the_ttl_anew(redis_client: redis.Redis) -> None:
    fill(redis_client, 1)
    redis_client.pexpire(KEY, 1_000)
    FEED.add(redis_client, KEY, entry="view:2:1")
    assert 59_000 < redis_client.pttl(KEY) <= 60_000


def test_an_add_is_one_transaction_and_one_round_trip(
    redis_client: redis.Redis, recorded: Recording
) -> None:
    recorded.trips.clear()
    FEED.add(redis_client, KEY, entry="view:1:1")
    [trip] = recorded.trips
    sent = [command.args[0] for command in trip.commands]
    assert sent == ["MULTI", "LREM", "LPUSH", "LTRIM", "PEXPIRE", "EXEC"]


def test_an_add_that_is_repeated_leaves_one_entry(redis_client: redis.Redis) -> None:
    before = fill(redis_client, 2)
    for _ in range(3):
        FEED.add(redis_client, KEY, entry="edit:9:1")
    assert listed(redis_client) == ["edit:9:1", *before]


def test_an_add_that_is_repeated_late_trims_nobody(redis_client: redis.Redis) -> None:
    newest = fill(redis_client, 5)
    FEED.add(redis_client, KEY, entry=newest[-1])
    assert listed(redis_client) == [newest[-1], *newest[:-1]]


def test_an_add_whose_reply_was_lost_is_carried_out_once(
    server_client: redis.Redis,
) -> None:
    """The server has answered, and the connection ends before anybody reads it."""
    connection = server_client.connection_pool.get_connection()
    sent = ("MULTI",), ("LREM", KEY, 0, "view:1:1"), ("LPUSH", KEY, "view:1:1")
    rest = ("LTRIM", KEY, 0, 4), ("PEXPIRE", KEY, 60_000), ("EXEC",)
    connection.send_packed_command(connection.pack_commands([*sent, *rest]))
    wait_until(lambda: server_client.exists(KEY))
    connection.disconnect()
    server_client.connection_pool.release(connection)
    FEED.add(server_client, KEY, entry="view:1:1")
    assert listed(server_client) == ["view:1:1"]


def test_writers_at_once_keep_the_cap_and_the_ttl(server_client: redis.Redis) -> None:
    def write(writer: int) -> None:
        for n in range(50):
            FEED.add(server_client, KEY, entry=f"view:{writer}:{n}")

    threads = [threading.Thread(target=write, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        with unrecorded():
            assert server_client.llen(KEY) <= 5
    assert len(set(listed(server_client))) == 5


# Pages


def test_pages_lead_from_the_newest_to_the_oldest(redis_client: redis.Redis) -> None:
    newest = fill(redis_client, 5)
    first = FEED.page(redis_client, KEY, count=2)
    second = FEED.page(redis_client, KEY, after=first.next, count=2)
    third = FEED.page(redis_client, KEY, after=second.next, count=2)
    assert first == Page(tuple(newest[:2]), newest[1], first=0, kept=5)
    assert second == Page(tuple(newest[2:4]), newest[3], first=2, kept=5)
    assert third == Page((newest[4],), None, first=4, kept=5)


def test_a_page_that_ends_with_the_list_has_no_next(redis_client: redis.Redis) -> None:
    fill(redis_client, 4)
    assert FEED.page(redis_client, KEY, count=4).next is None
    assert FEED.page(redis_client, KEY, count=3).next is not None


@pytest.mark.parametrize("after", [None, "view:3:1"])
def test_a_page_is_one_round_trip(
    redis_client: redis.Redis, recorded: Recording, after: str | None
) -> None:
    fill(redis_client, 5)
    recorded.trips.clear()
    FEED.page(redis_client, KEY, after=after, count=2)
    assert [len(trip.commands) for trip in recorded.trips] == [1]


def test_an_empty_list_has_an_empty_page(redis_client: redis.Redis) -> None:
    assert FEED.page(redis_client, KEY, count=2) == Page((), None, first=0, kept=0)


def test_nothing_is_older_than_the_oldest(redis_client: redis.Redis) -> None:
    newest = fill(redis_client, 3)
    page = FEED.page(redis_client, KEY, after=newest[-1], count=2)
    assert page == Page((), None, first=3, kept=3)


def test_an_entry_that_was_trimmed_is_gone_and_not_the_beginning(
    redis_client: redis.Redis,
) -> None:
    oldest = fill(redis_client, 5)[-1]
    FEED.add(redis_client, KEY, entry="edit:9:1")
    page = FEED.page(redis_client, KEY, after=oldest, count=2)
    assert page == Page((), None, first=0, kept=5, gone=True)


def test_an_entry_that_never_was_is_gone(redis_client: redis.Redis) -> None:
    page = FEED.page(redis_client, KEY, after="view:1:1", count=2)
    assert page == Page((), None, first=0, kept=0, gone=True)


def test_a_reader_sees_each_entry_once_while_others_are_added(
    redis_client: redis.Redis,
) -> None:
    feed = ActivityFeed(longest=100)
    there, seen, after = fill(redis_client, 12, feed), list[str](), None
    for n in range(4):
        page = feed.page(redis_client, KEY, after=after, count=3)
        seen, after = [*seen, *page.entries], page.next
        for i in range(n + 1):
            feed.add(redis_client, KEY, entry=f"edit:{n}:{i}")
    assert (seen, after) == (there, None)


def test_a_reader_sees_each_entry_once_while_another_client_pushes(
    server_client: redis.Redis, server: EmbeddedServer
) -> None:
    """It pushes as fast as it can, while the 40 entries are read in twos."""
    feed = ActivityFeed(longest=1_000)
    there = fill(server_client, 40, feed)
    other = client_for(f"unix://{server.socket}", role="cache", max_connections=1)
    begun, ended = threading.Event(), threading.Event()

    def push() -> None:
        n = 0
        while not ended.is_set():
            feed.add(other, KEY, entry=f"edit:{n}:1")
            n += 1
            if n == 5:
                begun.set()

    writer = threading.Thread(target=push)
    writer.start()
    assert begun.wait(5)
    seen, after = list[str](), there[0]  # the newest of those that are asked for
    while after:
        page = feed.page(server_client, KEY, after=after, count=2)
        seen, after = [*seen, *page.entries], page.next
    ended.set()
    writer.join()
    other.connection_pool.disconnect()
    assert seen == there[1:]


def test_without_redis_the_caller_is_told(redis_down: redis.Redis) -> None:
    with pytest.raises(RedisError):
        FEED.add(redis_down, KEY, entry="view:1:1")
    with pytest.raises(RedisError):
        FEED.page(redis_down, KEY, count=2)
