"""Fills an empty database with the same shop on every machine.

Only operations whose results do not depend on the machine are used: one seeded
generator, integer weights, fixed dates.
"""

import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate, islice
from itertools import product as combinations
from random import Random
from typing import Any

from sqlalchemy import Connection, Engine, Table, insert, inspect, text
from sqlalchemy.exc import OperationalError

from webapp.shop import models, outbox
from webapp.shop.assortment import CATEGORIES, Category
from webapp.shop.database import run, writing

PRODUCTS = 5_000
SHOPPERS = 20_000
ORDER_LINES = 300_000
FEATURED_IDS = range(1042, 1042 + len(CATEGORIES))  # one product of each category
NEWEST_ORDER_MS = 1_793_448_000_000  # 2026-10-31 12:00 UTC
WINDOW_MS = 30 * 24 * 3_600_000  # the time in which all orders were placed

_SEED = 1042
_CHUNK = 10_000  # rows inserted at once
_PATIENCE_S = 60  # for another process that seeds
_ORDER_SIZES = range(1, 6)  # lines
_COMPANIONS = 6  # products that a product is often bought with
_OPINIONS = (  # percent of the votes for one to five stars
    (2, 3, 10, 30, 55),
    (3, 6, 16, 40, 35),
    (5, 9, 26, 38, 22),
    (12, 16, 30, 26, 16),
    (28, 24, 22, 16, 10),
)

Row = dict[str, Any]
Progress = Callable[[int, int], None]


def is_seeded(engine: Engine) -> bool:
    if not inspect(engine).has_table(models.seeded.name):
        return False
    with engine.connect() as connection:
        return connection.execute(text("SELECT id FROM seeded")).first() is not None


def seed(engine: Engine, progress: Progress) -> None:
    """Make tables and content in one transaction, unless they are there.

    Calls `progress(done, total)` with order lines. A process that is killed leaves
    nothing behind; of two that seed at once, one works and the other waits.
    """
    give_up_at = time.monotonic() + _PATIENCE_S
    while True:
        try:
            with writing(engine) as connection:
                models.metadata.create_all(connection)
                if _claim(connection):
                    _fill(connection, progress)
            return
        except OperationalError as error:
            if not _is_busy(error) or time.monotonic() > give_up_at:
                raise


def restore(engine: Engine) -> list[int]:
    """Put edited products back to price and stock as seeded; returns their ids.

    Their versions go up, as with any edit, and the outbox gets their records in
    the same transaction.
    """
    with writing(engine) as connection:
        rows = run(
            connection,
            """UPDATE product SET price_cents = seeded_price_cents,
                 stock = seeded_stock, version = version + 1
               WHERE price_cents <> seeded_price_cents OR stock <> seeded_stock
               RETURNING id""",
        )
        ids = sorted(row.id for row in rows)
        for id in ids:
            outbox.record(connection, id)
    return ids


def _is_busy(error: OperationalError) -> bool:
    return getattr(error.orig, "sqlite_errorcode", None) == sqlite3.SQLITE_BUSY


def _claim(connection: Connection) -> bool:
    """Write the row that says so; false if it is there. It commits with the data."""
    marker = "INSERT INTO seeded (id) VALUES (1) ON CONFLICT DO NOTHING RETURNING id"
    return bool(connection.execute(text(marker)).all())


def _fill(connection: Connection, progress: Progress) -> None:
    rng = Random(_SEED)
    progress(0, ORDER_LINES)
    categories = [
        {"id": id, "slug": category.slug, "name": category.name}
        for id, category in enumerate(CATEGORIES, 1)
    ]
    products = list(_products(rng))
    sizes = _order_sizes(rng)
    _insert(connection, models.category, categories)
    _insert(connection, models.product, products)
    _insert(connection, models.rating, _ratings(rng))
    _insert(connection, models.orders, _orders(rng, len(sizes)))
    lines = _order_lines(rng, products, sizes)
    _insert(connection, models.order_line, lines, progress)
    connection.execute(text("ANALYZE"))


def _insert(
    connection: Connection,
    table: Table,
    rows: Iterable[Row],
    progress: Progress = lambda done, total: None,
) -> None:
    rows = iter(rows)
    done = 0
    while chunk := list(islice(rows, _CHUNK)):
        connection.execute(insert(table), chunk)
        done += len(chunk)
        progress(done, ORDER_LINES)


def _products(rng: Random) -> Iterator[Row]:
    deck = [offer for id, c in enumerate(CATEGORIES, 1) for offer in _deal(rng, id, c)]
    rng.shuffle(deck)
    at = FEATURED_IDS.start - 1
    deck[at:at] = [(id, *c.featured) for id, c in enumerate(CATEGORIES, 1)]
    for id, (category_id, name, price_cents, stock) in enumerate(deck, 1):
        yield {
            "id": id,
            "category_id": category_id,
            "name": name,
            "price_cents": price_cents,
            "stock": stock,
            "version": 1,
            "seeded_price_cents": price_cents,
            "seeded_stock": stock,
        }


def _deal(rng: Random, id: int, category: Category) -> list[tuple[int, str, int, int]]:
    """A category's share of the products, but for the featured one."""
    share = PRODUCTS // len(CATEGORIES) + (id <= PRODUCTS % len(CATEGORIES))
    offers = [
        (f"{make} {kind.noun}, {option}", kind.euros)
        for kind in category.kinds
        for make, option in combinations(kind.makes.split(","), kind.options.split(","))
    ]
    offers = [offer for offer in offers if offer[0] != category.featured.name]
    rng.shuffle(offers)
    return [
        (id, name, _price_cents(rng, euros), _stock(rng))
        for name, euros in offers[: share - 1]
    ]


def _price_cents(rng: Random, euros: tuple[int, int]) -> int:
    return rng.randrange(euros[0], euros[1] + 1) * 100 + rng.choice((0, 0, 50, 90))


def _stock(rng: Random) -> int:
    return rng.randrange(15) * rng.randrange(15)


def _ratings(rng: Random) -> Iterator[Row]:
    for product_id in range(1, PRODUCTS + 1):
        voters = 4 + rng.randrange(20) * rng.randrange(20)
        for stars, percent in enumerate(rng.choice(_OPINIONS), 1):
            if votes := (voters * percent + 50) // 100:
                yield {"product_id": product_id, "stars": stars, "votes": votes}


def _order_sizes(rng: Random) -> list[int]:
    """How many lines each order has; together all of them."""
    sizes = []
    left = ORDER_LINES
    while left:
        sizes.append(min(rng.choice(_ORDER_SIZES), left))
        left -= sizes[-1]
    return sizes


def _orders(rng: Random, orders: int) -> Iterator[Row]:
    """Evenly over the window, oldest first; each shopper orders at least once."""
    shoppers = list(range(1, SHOPPERS + 1))
    rng.shuffle(shoppers)
    step_ms = WINDOW_MS // orders
    for id in range(1, orders + 1):
        shopper_id = shoppers[id - 1] if id <= SHOPPERS else rng.choice(shoppers)
        placed_at_ms = NEWEST_ORDER_MS - (orders - id) * step_ms
        yield {"id": id, "shopper_id": shopper_id, "placed_at_ms": placed_at_ms}


def _order_lines(rng: Random, products: list[Row], sizes: list[int]) -> Iterator[Row]:
    """Few products sell much and many little; half of the lines go with the first."""
    companions = _companions(rng, products)
    drawn = _draw(rng, _by_popularity(rng))
    for order_id, size in enumerate(sizes, 1):
        basket = [next(drawn)]
        friends = companions[basket[0]]
        while len(basket) < size:
            goes_with = rng.random() < 0.5
            id = friends[_near_the_front(rng)] if goes_with else next(drawn)
            if id not in basket:
                basket.append(id)
        for id in basket:
            quantity = 1 + (rng.random() < 0.25) + (rng.random() < 0.1)
            yield {"order_id": order_id, "product_id": id, "quantity": quantity}


def _draw(rng: Random, ids: list[int]) -> Iterator[int]:
    weights = list(accumulate(1_000_000 // (40 + rank) for rank in range(len(ids))))
    while True:
        yield from rng.choices(ids, cum_weights=weights, k=_CHUNK)


def _by_popularity(rng: Random) -> list[int]:
    """Product ids, best sellers first; the featured ones are among these."""
    ids = [id for id in range(1, PRODUCTS + 1) if id not in FEATURED_IDS]
    rng.shuffle(ids)
    for place, id in enumerate(FEATURED_IDS):
        ids.insert(15 * place, id)
    return ids


def _companions(rng: Random, products: list[Row]) -> dict[int, list[int]]:
    """For each product those often bought with it, most of them its own category."""
    shelves: dict[int, list[int]] = {}
    for row in products:
        shelves.setdefault(row["category_id"], []).append(row["id"])
    everything = range(1, PRODUCTS + 1)
    return {
        row["id"]: rng.sample(shelves[row["category_id"]], _COMPANIONS - 2)
        + rng.sample(everything, 2)
        for row in products
    }


def _near_the_front(rng: Random) -> int:
    return int(rng.random() * rng.random() * _COMPANIONS)
