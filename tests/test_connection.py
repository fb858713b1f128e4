"""URLs of sets, and where a command goes in a Cluster: without any server."""

from pathlib import Path
from typing import Any

import pytest
from redis.crc import key_slot
from redis.exceptions import ConnectionError

from webapp.connection.addresses import SetUrl, UnusableSet, is_set, parse
from webapp.connection.roles import close
from webapp.connection.routing import slot_of
from webapp.connection.urls import client_for


def test_an_error_names_the_server_and_not_its_address(tmp_path: Path) -> None:
    client = client_for(f"unix://{tmp_path}/none", role="durable", max_connections=1)
    try:
        with pytest.raises(ConnectionError, match="connecting to durable") as failure:
            client.ping()
    finally:
        close(client)
    assert str(tmp_path) not in str(failure.value)


def test_a_sentinel_url_names_sentinels_service_and_credentials() -> None:
    assert parse("redis+sentinel://ann:s%40fe@a:1,b:2,c/shop") == SetUrl(
        "sentinel", (("a", 1), ("b", 2), ("c", 26379)), "shop", "ann", "s@fe"
    )


def test_a_cluster_url_names_nodes_to_ask_first() -> None:
    assert parse("redis+cluster://:secret@10.0.0.1:7001,[::1]:7002") == SetUrl(
        "cluster", (("10.0.0.1", 7001), ("::1", 7002)), "", None, "secret"
    )


@pytest.mark.parametrize(
    "url",
    [
        "redis+sentinel://a:1",  # without a service
        "redis+cluster://a:1/shop",  # with one
        "redis+cluster://",
        "redis+cluster://a:1,,b:2",
        "redis+cluster://a:0",
        "redis+cluster://a:x",
        "redis+sentinel://:secret@/shop",
    ],
)
def test_half_a_url_is_refused_and_its_password_not_repeated(url: str) -> None:
    assert is_set(url)
    with pytest.raises(UnusableSet) as refusal:
        parse(url)
    assert "secret" not in str(refusal.value)


@pytest.mark.parametrize(
    ("command", "key"),
    [
        (("GET", "a"), "a"),
        (("EVALSHA", "0f", 2, "a", "b"), "a"),
        (("eval", "return 1", 1, b"a"), "a"),
        (("MEMORY USAGE", "a", "SAMPLES", 0), "a"),
        (("OBJECT", "ENCODING", "a"), "a"),
        (("XREADGROUP", "GROUP", "g", "c", "BLOCK", 5, "STREAMS", "a", ">"), "a"),
        (("XREAD", "COUNT", 1, "streams", "a", "0"), "a"),
        (("XGROUP CREATE", "a", "g", "$"), "a"),
        (("XINFO STREAM", "a"), "a"),
        (("ZUNIONSTORE", "a", 2, "b", "c"), "a"),
        (("ZUNION", 2, "a", "b"), "a"),
        (("PUBSUB NUMSUB", "a"), "a"),
        (("PUBLISH", "a", "hello"), "a"),
        (("WATCH", "a", "b"), "a"),
    ],
)
def test_a_command_goes_to_the_slot_of_its_first_key(
    command: tuple[Any, ...], key: str
) -> None:
    assert slot_of(command) == key_slot(key.encode())


@pytest.mark.parametrize(
    "command",
    [("PING",), ("SCAN", 0), ("SCRIPT LOAD", "x"), ("EVAL", "return 1", 0),
     ("CONFIG SET", "maxmemory", 0), ("CLIENT", "ID"), ("INFO", "memory"), ("TIME",),
     ("MEMORY DOCTOR",), ("DBSIZE",), ("WAIT", 1, 100)],
)  # fmt: skip
def test_a_command_without_a_key_has_no_slot(command: tuple[Any, ...]) -> None:
    assert slot_of(command) is None
