"""The pipeline over the websocket: a frame when something changed, twice a second."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import redis
from simple_websocket import Client

from tests.conftest import RedisProcess, Served, served, wait_until
from webapp.connection.urls import probe_client
from webapp.shop.orders import Item, Order, Orders

pytestmark = pytest.mark.server

ORDER = Order((Item(7, 1, 100),))


@pytest.fixture
def site(instance: Path, redis_url: str) -> Iterator[Served]:
    with served(instance, redis_url) as app:
        yield app


@pytest.fixture
def orders(redis_url: str) -> Iterator[Orders]:
    client = probe_client(redis_url)
    yield Orders(client, "rpl")
    client.close()


@pytest.fixture
def page(site: Served) -> Iterator[Client]:
    url = f"ws://127.0.0.1:{site.port}/ws/live?topics=streams"
    page = Client.connect(url, headers={"Origin": "http://127.0.0.1"})
    yield page
    page.close()


def frames(page: Client, wanted: str) -> int:
    """How many came until one had this text in it."""
    count, deadline = 0, time.monotonic() + 20
    while time.monotonic() < deadline:
        text = page.receive(timeout=1)
        if text is None:
            continue
        message: Any = msgspec.json.decode(text)
        assert message["topic"] == "streams"
        count += 1
        if wanted in message["html"]:
            return count
    raise AssertionError(f"no frame with {wanted!r} in {count}")


def test_what_changes_is_on_the_page_by_itself_and_what_does_not_is_sent_once(
    page: Client, orders: Orders
) -> None:
    assert frames(page, "No order yet") == 1
    assert page.receive(timeout=1.6) is None
    orders.place(ORDER, once="a")
    assert frames(page, "1 not delivered") == 1


@pytest.mark.one_server("it is killed")
def test_while_redis_is_away_the_page_says_since_when_and_then_goes_on(
    page: Client, orders: Orders, redis_process: RedisProcess
) -> None:
    frames(page, "No order yet")
    redis_process.kill()
    frames(page, "<b>As of ")
    redis_process.start()

    def placed() -> bool:
        try:
            return bool(orders.place(ORDER, once="a"))
        except redis.RedisError:  # the connection is still the old one
            return False

    wait_until(placed, within_s=20)
    frames(page, "1 not delivered")
