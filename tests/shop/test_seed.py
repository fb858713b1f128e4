import hashlib
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from sqlalchemy import Engine, select, text

from webapp.shop import database, models
from webapp.shop import seed as seeding
from webapp.shop.database import open_database
from webapp.shop.seed import is_seeded, seed

# Changes only when somebody means to change what the shop sells.
CONTENT = "be546342767beb071cd4c88a2c40b924666ad6d16bbee8b99cc3e9da2d764824"

FEW = 30_000  # order lines, where it is not about how many there are

KILLED_HALF_WAY = f"""
import os, signal, sys
from webapp.shop import seed as module
from webapp.shop.database import open_database

module.ORDER_LINES = {FEW}

def die_half_way(done, total):
    if done >= total // 2:
        os.kill(os.getpid(), signal.SIGKILL)

module.seed(open_database(sys.argv[1]), die_half_way)
"""


def numbers(engine: Engine, sql: str) -> list[int]:
    with engine.connect() as connection:
        [row] = connection.execute(text(sql))
    return list(row)


@dataclass
class Race:
    early: list[tuple[int, int]] = field(default_factory=list)  # the first's progress
    late: list[tuple[int, int]] = field(default_factory=list)  # the second's
    order_lines: int = 0


@pytest.fixture(scope="module")
def race(tmp_path_factory: pytest.TempPathFactory) -> Race:
    """Two seeds of one new database; the second begins while the first is at work."""
    url = f"sqlite:///{tmp_path_factory.mktemp('race') / 'new' / 'shop.db'}"
    race = Race()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(database, "_BUSY_MS", 50)  # far shorter than a seed takes
        first, second = open_database(url), open_database(url)
        patch.setattr(seeding, "ORDER_LINES", FEW)
        _run(race, first, second)
    [race.order_lines] = numbers(second, "SELECT count(*) FROM order_line")
    first.dispose()
    second.dispose()
    return race


def _run(race: Race, first: Engine, second: Engine) -> None:
    rival = threading.Thread(
        target=seed, args=(second, lambda *progress: race.late.append(progress))
    )

    def note(done: int, total: int) -> None:
        race.early.append((done, total))
        if done == 0:
            rival.start()

    seed(first, note)
    rival.join()


def test_content_is_the_same_on_every_machine(shop: Engine) -> None:
    digest = hashlib.sha256()
    with shop.connect() as connection:
        for table in models.metadata.sorted_tables:
            for row in connection.execute(select(table).order_by(*table.primary_key)):
                digest.update(repr(tuple(row)).encode())
    assert digest.hexdigest() == CONTENT


def test_there_are_12_categories_and_5000_products(shop: Engine) -> None:
    counts = "SELECT (SELECT count(*) FROM category), (SELECT count(*) FROM product)"
    assert numbers(shop, counts) == [12, 5_000]


def test_20000_shoppers_bought_300000_lines(shop: Engine) -> None:
    sql = """SELECT count(*), count(DISTINCT shopper_id)
             FROM order_line JOIN orders ON orders.id = order_line.order_id"""
    assert numbers(shop, sql) == [300_000, 20_000]


def test_all_orders_are_of_the_30_days_before_the_newest(shop: Engine) -> None:
    sql = "SELECT max(placed_at_ms) - min(placed_at_ms) FROM orders"
    [span_ms] = numbers(shop, sql)
    assert 29 * 86_400_000 < span_ms < 30 * 86_400_000


def test_an_order_has_one_to_five_different_products(shop: Engine) -> None:
    sql = """SELECT min(lines), max(lines), sum(lines - products) FROM (
               SELECT count(*) AS lines, count(DISTINCT product_id) AS products
               FROM order_line GROUP BY order_id) AS baskets"""
    assert numbers(shop, sql) == [1, 5, 0]


def test_names_are_all_different(shop: Engine) -> None:
    assert numbers(shop, "SELECT count(DISTINCT name) FROM product") == [5_000]


def test_few_products_sell_much_and_all_sell_something(shop: Engine) -> None:
    sql = """SELECT min(lines), max(lines), count(*) FROM (
               SELECT count(*) AS lines FROM order_line GROUP BY product_id) AS sales"""
    least, most, products = numbers(shop, sql)
    assert (least > 0, products) == (True, 5_000)
    assert most > 10 * 300_000 / 5_000


def test_only_primary_and_foreign_keys_are_indexed() -> None:
    for table in models.metadata.tables.values():
        for index in table.indexes:
            [column] = index.columns
            assert column.foreign_keys, index.name


def test_a_new_file_is_not_seeded(tmp_path: Path) -> None:
    engine = open_database(f"sqlite:///{tmp_path / 'shop.db'}")
    assert not is_seeded(engine)
    engine.dispose()


def test_a_seeded_shop_is_left_alone(engine: Engine) -> None:
    seen: list[int] = []
    seed(engine, lambda done, total: seen.append(done))
    assert seen == []


def test_a_seed_killed_half_way_is_done_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seeding, "ORDER_LINES", FEW)
    url = f"sqlite:///{tmp_path / 'shop.db'}"
    killed = subprocess.run([sys.executable, "-c", KILLED_HALF_WAY, url], check=False)
    assert killed.returncode == -signal.SIGKILL
    engine = open_database(url)
    assert not is_seeded(engine)
    seed(engine, lambda done, total: None)
    assert is_seeded(engine)
    assert numbers(engine, "SELECT count(*) FROM order_line") == [FEW]
    engine.dispose()


def test_a_second_seed_waits_for_the_first_and_adds_nothing(race: Race) -> None:
    assert race.late == []
    assert race.order_lines == FEW


def test_progress_runs_from_nothing_to_all_lines(race: Race) -> None:
    assert race.early == sorted(race.early)
    assert race.early[0] == (0, FEW)
    assert race.early[-1] == (FEW, FEW)
