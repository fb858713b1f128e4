"""What somebody else wrote into the cache, and who asks for what does not exist."""

import pickle
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
import redis
from flask import Flask
from flask.testing import FlaskClient

from webapp.patterns.bloom_filter import BloomFilter
from webapp.patterns.response_cache import digest
from webapp.shop import queries
from webapp.shop.catalog import Catalog
from webapp.shop.seed import PRODUCTS

LIST = {"category": None, "after": 0, "limit": 3}


class Bomb:
    """Runs when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return Path.touch, (self.file,)


def poisons(file: Path) -> list[bytes]:
    return [
        b"",
        b"{",
        b"[]",
        b'"text"',
        b'{"id":"much"}',
        b"\xff\xfe\x00",
        b"[" * 100_000 + b"]" * 100_000,
        b'{"id":' + b"9" * 5_000 + b"}",
        b'{"id":NaN,"price_cents":Infinity}',
        pickle.dumps(Bomb(file)),
        zlib.compress(bytes(1_000_000)),
    ]


def targets(catalog: Catalog) -> list[tuple[str, str, bool]]:
    """Each cached value, what reads it, and whether it is on the durable server."""
    own = catalog.locked_entry(1042)
    answer = catalog.answer_names(digest(LIST))
    product, listing = "/catalog/1042", "/api/products?limit=3"
    return [
        (own.value, "/api/products/1042", False),
        (own.value, product, False),
        (own.value, f"{product}?variant=write-through", False),
        (own.value, f"{product}?variant=tag-invalidation", False),
        (own.value, f"{product}?variant=stampede", False),
        (own.lock.lock, product, False),
        (own.lock.fence, f"{product}?variant=stampede", False),
        (catalog.list_entry.value, "/api/categories", False),
        (catalog.list_entry.value, "/catalog", False),
        (catalog.filter_key, f"{product}?variant=bloom-filter", False),
        (answer.generation, listing, False),
        (answer.answer, listing, False),
        (answer.answer, "/catalog/answers?variant=response-cache&limit=3", False),
        (catalog.tag("kitchen").key, "/api/products/1042", True),
    ]


def values(count: int, first: int, file: Path, valid: bytes) -> Iterator[bytes]:
    """So many: the list from one on, then what was there with a few bytes changed."""
    chance, known = Random(1042), poisons(file)
    for n in range(count):
        if n < len(known) or not valid:
            yield known[(first + n) % len(known)]
            continue
        spoiled = bytearray(valid)
        for _ in range(chance.randint(1, 4)):
            spoiled[chance.randrange(len(spoiled))] = chance.randrange(256)
        yield bytes(spoiled)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("each", [4, pytest.param(360, marks=pytest.mark.slow)])
def test_no_poisoned_value_is_an_error_and_none_of_it_runs(
    app: Flask,
    client: FlaskClient,
    tmp_path: Path,
    each: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """FAULTS D5: each value with four kinds of poison; all kinds and 5,000 when slow.

    `null` is no poison: it says that there is no such product, for half a minute.
    """
    catalog: Catalog = app.extensions["catalog"]
    file, tried, told = tmp_path / "ran", 0, poisoned(client)
    page = queries.product(catalog.engine, 1042)  # slow, and asked for again and again
    monkeypatch.setattr("webapp.shop.catalog.queries.product", lambda *_: page)
    for n, (key, url, durable) in enumerate(targets(catalog)):
        held = catalog.tags if durable else catalog.cache
        client.get(url)
        valid = b"" if durable else held.get(key) or b""
        for value in values(each, 4 * n, file, valid):
            generation = catalog.cache.get(catalog.answer_names("x").generation) or b""
            before = generation + b":" if ":response:" in key else b""
            for poison in {value, before + value}:
                tried += 1
                _put(held, key, poison)
                assert client.get(url).status_code in (200, 404), (key, poison[:80])
    assert tried >= min(14 * each, 5_000)
    assert not file.exists()
    assert poisoned(client) > told
    _put(catalog.cache, catalog.filter_key, b"")  # bits that nobody set deny
    for _, url, _ in targets(catalog):
        assert client.get(url).status_code == 200, url


def poisoned(client: FlaskClient) -> float:
    """How many poisoned values the metrics tell of."""
    found = re.search(
        r"^rpl_cache_poisoned_total (\S+)$", client.get("/metrics").text, re.M
    )
    return float(found[1]) if found else 0.0


def _put(client: redis.Redis, key: str, value: bytes) -> None:
    client.delete(key)
    client.set(key, value, px=5_000)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("count", [200, pytest.param(10_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("path", "most_guesses"),
    [
        ("/catalog/{}?variant=bloom-filter", 0),
        ("/catalog/{}?variant=stampede", 100),
        ("/api/products/{}", 100),
    ],
)
def test_ids_that_do_not_exist_leave_few_keys_and_cause_few_queries(
    app: Flask,
    client: FlaskClient,
    path: str,
    most_guesses: int,
    count: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """FAULTS D6, with 200 random ids; with 10,000 when slow. 1 % is planned to pass."""
    catalog: Catalog = app.extensions["catalog"]
    client.get("/catalog/1042?variant=bloom-filter")  # builds the filter
    loads: list[int] = []
    load = queries.product

    def counted(engine: Any, id: int) -> queries.ProductPage | None:
        loads.append(id)
        return load(engine, id)

    monkeypatch.setattr("webapp.shop.catalog.queries.product", counted)
    monkeypatch.setattr(catalog._guesses, "_within_s", 3_600.0)  # however slow we ask
    chance = Random(6)
    for _ in range(count):
        unknown = chance.randint(PRODUCTS + 1, 2**31 - 1)
        answer = client.get(path.format(unknown), headers={"HX-Request": "true"})
        assert "No product" in answer.text or answer.status_code == 404
    most = most_guesses + 4 + count // 50
    kept = [
        key for key in catalog.cache.keys("*catalog:product:*") if b"1042" not in key
    ]
    assert len(kept) <= most
    assert len(loads) <= most
    for key in kept:
        assert 0 < catalog.cache.pttl(key) <= 33_000


def test_the_filter_is_asked_first_only_while_guesses_are_many(
    app: Flask, client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog: Catalog = app.extensions["catalog"]
    asked: list[str] = []
    has = catalog.known.has

    def noted(client: redis.Redis, key: str, id: str) -> bool | None:
        asked.append(id)
        return has(client, key, id)

    monkeypatch.setattr(BloomFilter, "has", lambda _, *args: noted(*args))
    monkeypatch.setattr(catalog._guesses, "_within_s", 3_600.0)
    for id in range(PRODUCTS + 1, PRODUCTS + 101):
        assert client.get(f"/api/products/{id}").status_code == 404
    assert asked == []
    assert client.get("/api/products/1042").status_code == 200
    assert client.get("/api/products/999999").status_code == 404
    assert asked == ["1042", "999999"]
    monkeypatch.setattr(catalog._guesses, "_within_s", 0.0)  # some time later
    assert client.get("/api/products/999999").status_code == 404
    assert asked == ["1042", "999999"]


@pytest.mark.parametrize("bad", ["0x1", "-1", "1e3", "99999999999", "%00", "1042;"])
def test_what_is_no_id_reaches_neither_redis_nor_the_database(
    app: Flask, client: FlaskClient, bad: str
) -> None:
    """FAULTS D6."""
    assert client.get(f"/api/products/{bad}").status_code in (400, 404)
    assert app.extensions["clients"].cache.keys("*product*") == []
