"""Break it: what each run of the locks shows."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis
from sqlalchemy import Engine

from tests.patterns.test_distributed_lock import NAMES
from webapp import keys
from webapp.connection.embedded import EmbeddedServer
from webapp.experiments import Bench, Outcome
from webapp.experiments.distributed_lock import (
    EXPERIMENTS,
    PROCESS_EXPERIMENTS,
    buy_at_once,
    buy_locked,
)
from webapp.shop import models
from webapp.shop.database import open_database

ALL = EXPERIMENTS + PROCESS_EXPERIMENTS
BY_NAME = {experiment.name: experiment for experiment in ALL}


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    engine = open_database(f"sqlite:///{tmp_path_factory.mktemp('shop') / 'shop.db'}")
    models.metadata.create_all(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def bench(server_client: redis.Redis, server: EmbeddedServer, engine: Engine) -> Bench:
    """On a real server: processes cannot reach another one."""
    url = f"unix://{server.socket}"
    return Bench(server_client, engine, "rpl", 1042, keys.LOCKS_LAB, url)


def run(bench: Bench, name: str, **controls: int) -> Outcome:
    experiment = BY_NAME[name]
    return experiment.run(
        bench, **({c.name: c.min for c in experiment.controls} | controls)
    )


def values(outcome: Outcome) -> list[str]:
    return [row.value.replace("\u00a0", " ") for row in outcome.rows]


def test_a_sale_is_oversold_without_a_lock_and_right_with_it(bench: Bench) -> None:
    none, locked, script, *_ = values(run(bench, "flash-sale", buyers=800))
    assert int(none) > 200
    assert (locked, script) == ("200", "200")


@pytest.mark.slow
def test_a_sale_of_500_items_to_2000_buyers(bench: Bench) -> None:
    none, locked, script, *_ = values(run(bench, "flash-sale", buyers=2_000))
    assert int(none.replace(",", "")) > 500
    assert (locked, script) == ("500", "500")


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("buyers", "items"), [(250, 50), pytest.param(5_000, 1_000, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("way", ["lock", "one script"])
def test_every_item_is_sold_once_and_the_stock_is_never_below_zero(
    server_client: redis.Redis, way: str, buyers: int, items: int
) -> None:
    """FAULTS E7, with 250 buyers of 50 items; with 5,000 of 1,000 when slow."""
    stock = keys.key("rpl", keys.LOCKS_LAB, "sale", "stock")
    server_client.set(stock, items, px=keys.LOCKS_LAB.ttl_ms)

    def buy(_: int) -> tuple[bool, int]:
        """Whether it was sold, and how many were left after it."""
        if way == "lock":
            sold = buy_locked(server_client, stock, NAMES)
        else:
            sold = buy_at_once(server_client, stock)
        return sold, int(server_client.get(stock) or 0)

    with ThreadPoolExecutor(8) as pool:
        bought = list(pool.map(buy, range(buyers)))
    assert sum(sold for sold, _ in bought) == items
    assert min(left for _, left in bought) == 0


def test_del_lets_a_third_in_and_a_token_does_not(bench: Bench) -> None:
    outcome = run(bench, "release")
    assert values(outcome) == ["2", "1"]
    assert [lane.steps[3].reply for lane in outcome.lanes] == [
        "deleted B's lock",
        "not its own any more",
    ]


def test_a_killed_holder_is_replaced_only_where_its_lock_has_a_ttl(
    bench: Bench,
) -> None:
    never, after = values(run(bench, "no-ttl"))
    assert never == "never got it"
    assert after.startswith("got it after")


def test_a_stopped_holder_writes_late_and_is_refused_by_its_number(
    bench: Bench,
) -> None:
    outcome = run(bench, "stopped")
    assert values(outcome) == ["worker A", "worker B"]
    assert [lane.steps[4].reply for lane in outcome.lanes] == [
        "written",
        "refused: a higher number has written",
    ]


def test_what_the_other_process_sent_is_on_the_tape(bench: Bench) -> None:
    taken, *_, woken, _ = run(bench, "stopped").lanes[0].steps
    assert taken.recording.trips[-1].commands[0].args[0] in ("EVALSHA", "EVAL")
    assert woken.recording.sql[0].text.startswith("INSERT INTO report")
