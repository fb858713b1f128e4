"""Where database and cache meet: however a product is read and written."""

import threading
from collections.abc import Iterator
from random import Random

import msgspec
import pytest
from sqlalchemy import Engine

from tests.conftest import wait_until
from webapp.connection import urls
from webapp.connection.budget import limited_to
from webapp.connection.recorder import Recording, recording
from webapp.connection.roles import Clients, connect
from webapp.patterns.distributed_lock import DistributedLock
from webapp.patterns.stampede.locked_flight import LockedFlight
from webapp.scripts import preload
from webapp.shop import outbox, queries
from webapp.shop.catalog import Catalog, replay_outbox
from webapp.shop.seed import PRODUCTS


@pytest.fixture
def clients(url: str) -> Iterator[Clients]:
    fakes = {"cache": f"fake://cache-{url}", "durable": f"fake://durable-{url}"}
    clients = connect(fakes, max_connections=16)
    for _, client in clients.items():
        preload(client)
    yield clients
    clients.close()


@pytest.fixture
def catalog(engine: Engine, clients: Clients) -> Catalog:
    return Catalog(engine, clients, "rpl")


def version_in_cache(catalog: Catalog, product_id: int) -> int | None:
    payload = catalog.cache.get(catalog.entry(product_id).value)
    return msgspec.json.decode(payload)["version"] if payload else None


# Write-through


def test_an_edit_stores_the_whole_page_as_it_is_now(catalog: Catalog) -> None:
    before = catalog.product(1042).value
    edited = catalog.edit_through(1042, price_cents=777)
    assert edited is not None
    assert edited.copy == "stored"
    after = catalog.product(1042)
    assert after.outcome == "hit"
    assert before is not None
    expected = msgspec.structs.replace(before, price_cents=777, version=2)
    assert after.value == expected


def test_an_edit_of_a_product_without_a_copy_stores_none(catalog: Catalog) -> None:
    edited = catalog.edit_through(1042, price_cents=777)
    assert edited is not None
    assert edited.copy == "absent"
    assert catalog.product(1042).outcome == "miss"


def test_an_edit_of_no_product_is_none(catalog: Catalog) -> None:
    assert catalog.edit_through(5_001, stock=1) is None


def test_an_edit_takes_one_round_trip_for_the_lists_and_one_for_the_copy(
    catalog: Catalog,
) -> None:
    catalog.product(1042)
    for edit in (catalog.edit, catalog.edit_through):
        with recording(Recording("edit")) as own:
            edit(1042, stock=3)
        assert len(own.trips) == 2


def test_an_edit_without_redis_leaves_a_record(
    catalog: Catalog, clients: Clients, url: str
) -> None:
    catalog.product(1042)
    server = urls.fake_server(f"fake://cache-{url}")
    server.connected = False
    edited = catalog.edit_through(1042, price_cents=777)
    assert edited is not None
    assert edited.copy is None
    assert [entry.product_id for entry in outbox.pending(catalog.engine)] == [1042]
    server.connected = True


class Killed(BaseException):
    """The process is gone: nothing of it runs any more."""


def die(*_: object, **__: object) -> None:
    raise Killed


FAULT_POINTS = {
    "before the page is loaded": "webapp.shop.catalog.queries.product",
    "before Redis is told": "webapp.patterns.write_through._write",
    "before the record is cleared": "webapp.shop.catalog.outbox.clear",
}


@pytest.mark.parametrize("point", FAULT_POINTS)
def test_a_crash_leaves_what_the_record_repairs(
    catalog: Catalog, clients: Clients, point: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FAULTS D3, at 20 crashes for each point instead of 2,000."""
    for n in range(20):
        catalog.product(1042)
        with monkeypatch.context() as patched:
            patched.setattr(FAULT_POINTS[point], die)
            with pytest.raises(Killed):
                catalog.edit_through(1042, price_cents=1_000 + n)
        replay_outbox(catalog.engine, clients.cache, "rpl")
        read = catalog.product(1042).value
        assert read is not None
        assert read.price_cents == 1_000 + n
        assert outbox.pending(catalog.engine) == []


# Tags


def test_an_invalidated_category_is_read_anew_and_others_are_not(
    catalog: Catalog,
) -> None:
    kettle, other = 1042, 1043
    for product_id in (kettle, other):
        catalog.tagged_product(product_id)
    assert catalog.invalidate_category("kitchen") == 1
    assert catalog.tagged_product(kettle).outcome == "miss"
    assert catalog.tagged_product(other).outcome == "hit"


def test_a_copy_that_nobody_registered_is_no_hit_where_tags_count(
    catalog: Catalog,
) -> None:
    catalog.product(1042)
    assert catalog.tagged_product(1042).outcome == "miss"
    assert catalog.tagged_product(1042).outcome == "hit"
    assert catalog.invalidate_category("kitchen") == 1


def test_a_registered_copy_is_a_hit_everywhere(catalog: Catalog) -> None:
    tagged = catalog.tagged_product(1042).value
    plain = catalog.product(1042)
    assert (plain.outcome, plain.value) == ("hit", tagged)
    assert catalog.tagged_product(1042).value == tagged


def test_tags_are_on_the_server_that_evicts_nothing(
    catalog: Catalog, clients: Clients
) -> None:
    catalog.tagged_product(1042)
    assert clients.durable.smembers("rpl:catalog:tag:{kitchen}") == {b"1042"}
    assert not clients.cache.keys("*tag*")


def test_a_tagged_miss_takes_three_round_trips(catalog: Catalog) -> None:
    with recording(Recording("read")) as own:
        catalog.tagged_product(1042)
    assert len(own.trips) == 3


def test_a_product_that_does_not_exist_joins_no_tag(
    catalog: Catalog, clients: Clients
) -> None:
    assert catalog.tagged_product(5_001).value is None
    assert not clients.durable.keys("*")


# Stampede protection


def test_a_protected_read_shares_its_copy_with_the_other_ways(
    catalog: Catalog,
) -> None:
    first = catalog.protected_product(1042)
    assert (first.outcome, catalog.product(1042).outcome) == ("miss", "hit")
    catalog.edit(1042, stock=7)
    assert catalog.product(1042).outcome == "miss"
    assert catalog.protected_product(1042).outcome == "hit"


def test_a_protected_miss_takes_two_round_trips(catalog: Catalog) -> None:
    long = DistributedLock(ttl_ms=9_000, keep_ms=60_000)
    catalog.flight = LockedFlight(lock=long)  # no load is so slow that it is extended
    with recording(Recording("read")) as own:
        catalog.protected_product(1042)
    assert len(own.trips) == 2


def test_to_wait_for_another_does_not_use_up_the_requests_time_for_redis(
    catalog: Catalog, clients: Clients
) -> None:
    """Or the last wait would end as a timeout, which opens the breaker for all."""
    catalog.flight = LockedFlight(wait_ms=300)
    catalog.cache.set(catalog.entry(1042).lease, "another's", px=9_000)
    with limited_to(0.1):
        read = catalog.protected_product(1042)
    assert read.outcome == "miss"  # its own load, after waiting in vain
    assert not clients.breakers["cache"].is_open


def test_an_edit_takes_the_lock_of_who_loads_away(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = queries.product

    def overtaken(engine: Engine, id: int) -> queries.ProductPage | None:
        page = load(engine, id)
        monkeypatch.undo()
        catalog.edit(id, price_cents=777)
        return page

    monkeypatch.setattr("webapp.shop.catalog.queries.product", overtaken)
    before = catalog.protected_product(1042).value
    after = catalog.protected_product(1042).value
    assert before is not None
    assert after is not None
    assert (before.price_cents, after.price_cents) == (4850, 777)


# Lists of the API


def listed(catalog: Catalog, product_id: int) -> tuple[str, int]:
    """How a list of one product was answered, and what price it has."""

    def compute() -> bytes:
        rows = queries.products(catalog.engine, after=product_id - 1, limit=1)
        return msgspec.json.encode(rows)

    kind = list[queries.ProductRow]
    answer = catalog.listed({"id": product_id}, compute=compute, kind=kind)
    return answer.outcome, msgspec.json.decode(answer.body, type=kind)[0].price_cents


def test_no_list_has_a_price_that_an_edit_replaced(catalog: Catalog) -> None:
    for n, edit in enumerate((catalog.edit, catalog.edit_through)):
        listed(catalog, 1042)
        assert listed(catalog, 1042)[0] == "hit"
        edit(1042, price_cents=700 + n)
        assert listed(catalog, 1042) == ("miss", 700 + n)


def test_an_edit_while_redis_is_away_voids_the_lists_when_it_is_back(
    catalog: Catalog, clients: Clients, url: str
) -> None:
    listed(catalog, 1042)
    server = urls.fake_server(f"fake://cache-{url}")
    server.connected = False
    catalog.edit(1042, price_cents=777)
    assert listed(catalog, 1042) == ("bypass", 777)
    server.connected = True
    wait_until(lambda: not clients.breakers["cache"].is_open, within_s=20)
    replay_outbox(catalog.engine, clients.cache, "rpl")
    assert listed(catalog, 1042) == ("miss", 777)


# The static list


def test_the_list_of_categories_is_kept_for_a_day(catalog: Catalog) -> None:
    first, second = catalog.categories(), catalog.categories()
    assert (first.outcome, second.outcome) == ("miss", "hit")
    assert first.value == second.value
    day_ms = 24 * 3_600_000
    ttl_ms = catalog.cache.pttl(catalog.list_entry.value)
    assert day_ms - 1_000 < ttl_ms <= day_ms * 1.1


# All at once


def test_no_mix_of_variants_serves_what_an_acknowledged_write_replaced(
    catalog: Catalog, clients: Clients
) -> None:
    ids = (1042, 1043)
    acknowledged = dict.fromkeys(ids, 1)
    lock, over = threading.Lock(), threading.Event()
    stale: list[str] = []
    failed: list[BaseException] = []
    outcomes: set[tuple[int, str]] = set()
    reads = (catalog.product, catalog.tagged_product, catalog.protected_product)
    edits = (catalog.edit, catalog.edit_through)

    def keep_reading(seed: int) -> None:
        chance = Random(seed)
        while not over.is_set():
            if chance.random() < 0.02:
                disturb(chance)
            product_id, way = chance.choice(ids), chance.randrange(3)
            least = acknowledged[product_id]
            read = reads[way](product_id)
            outcomes.add((way, read.outcome))
            if read.value is None or read.value.version < least:
                stale.append(f"{product_id}: {read} after {least}")

    def keep_writing(seed: int) -> None:
        chance = Random(seed)
        for _ in range(30):
            product_id = chance.choice(ids)
            edited = edits[chance.randrange(2)](product_id, stock=chance.randrange(99))
            assert edited is not None
            with lock:
                version = max(acknowledged[product_id], edited.product.version)
                acknowledged[product_id] = version

    def disturb(chance: Random) -> None:
        entry = catalog.entry(chance.choice(ids))
        match chance.randrange(3):
            case 0:
                catalog.invalidate_category("kitchen")
            case 1:
                replay_outbox(catalog.engine, clients.cache, "rpl")
            case 2:  # evicted
                clients.cache.delete(chance.choice((entry.value, entry.lease)))

    def kept(work: object, *args: int) -> None:
        try:
            work(*args)  # type: ignore[operator]
        except BaseException as error:
            failed.append(error)

    writers = [threading.Thread(target=kept, args=(keep_writing, n)) for n in (1, 2)]
    others = [threading.Thread(target=kept, args=(keep_reading, n)) for n in range(4)]
    for thread in writers + others:
        thread.start()
    for thread in writers:
        thread.join()
    seen = {(way, outcome) for way in range(3) for outcome in ("hit", "miss")}
    wait_until(lambda: failed or seen <= outcomes)
    over.set()
    for thread in others:
        thread.join()
    assert not failed
    assert not stale
    for product_id in ids:
        assert version_in_cache(catalog, product_id) in (None, acknowledged[product_id])


def test_an_edit_of_either_kind_is_seen_by_every_reader(catalog: Catalog) -> None:
    price = 100
    for edit in (catalog.edit, catalog.edit_through) * 2:
        for first in (catalog.product, catalog.tagged_product):
            for second in (catalog.product, catalog.tagged_product):
                first(1042)
                price += 1
                edit(1042, price_cents=price)
                read = second(1042).value
                assert read is not None
                assert read.price_cents == price


def test_an_id_that_the_filter_denies_reaches_no_table(catalog: Catalog) -> None:
    assert catalog.filtered_product(1042).outcome == "miss"  # which builds the filter
    unknown = range(PRODUCTS + 1, PRODUCTS + 101)
    with recording(Recording("unknown")) as own:
        assert not any(catalog.filtered_product(id).value for id in unknown)
    assert len(own.sql) < 10  # 1 is planned to pass
    assert catalog.filtered_product(1042).outcome == "hit"


def test_who_builds_the_filter_is_answered_by_it(catalog: Catalog) -> None:
    with recording(Recording("unknown")) as own:
        assert catalog.filtered_product(PRODUCTS + 1).outcome == "hit"
    assert [query.text for query in own.sql] == ["SELECT id FROM product"]
    assert catalog.cache.keys("*product:*") == []


def test_without_redis_the_filter_lets_everything_pass(
    catalog: Catalog, url: str
) -> None:
    urls.fake_server(f"fake://cache-{url}").connected = False
    assert catalog.filtered_product(1042).outcome == "bypass"
