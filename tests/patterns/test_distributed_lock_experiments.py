"""Break it: what each run of the locks shows, and that it leaves nothing."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import redis
from redis.crc import key_slot
from redis.exceptions import RedisError
from sqlalchemy import Engine

from tests.patterns.conftest import keys_of
from tests.patterns.test_distributed_lock import NAMES
from webapp import keys
from webapp.connection.embedded import EmbeddedServer
from webapp.connection.recorder import Command
from webapp.experiments import Bench, Experiment, Outcome
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
FAMILIES = {keys.LOCKS_LAB, keys.LOCKS_LAB_WAKE}
each_experiment = pytest.mark.parametrize(
    "experiment", ALL, ids=lambda experiment: experiment.name
)
each_alone = pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda e: e.name)


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


def commands(outcome: Outcome) -> list[Command]:
    """All but those of a new connection."""
    sent = [c for own in outcome.recordings for t in own.trips for c in t.commands]
    return [c for c in sent if c.args[0] not in ("HELLO", "CLIENT")]


def values(outcome: Outcome) -> list[str]:
    return [row.value.replace("\u00a0", " ") for row in outcome.rows]


@each_experiment
def test_a_run_leaves_no_key_and_no_row(
    bench: Bench, engine: Engine, experiment: Experiment
) -> None:
    run(bench, experiment.name)
    assert bench.client.keys("*") == []
    with engine.connect() as connection:
        left = connection.exec_driver_sql("SELECT count(*) FROM report").scalar()
    assert left == 0


@each_experiment
def test_a_run_uses_only_scratch_keys_of_one_group(
    bench: Bench, experiment: Experiment
) -> None:
    sent = commands(run(bench, experiment.name))
    named = {key for c in sent for key in keys_of(c) if c.args[0] != "BLPOP"}
    assert {keys.family_of("rpl", key) for key in named} <= FAMILIES
    assert len({key_slot(key.encode()) for key in named}) == 1


@each_experiment
def test_every_command_names_the_line_that_sent_it(
    bench: Bench, experiment: Experiment
) -> None:
    sent = commands(run(bench, experiment.name))
    files = {Path(c.source[0]).name for c in sent if c.source}
    assert files <= {"distributed_lock.py", "holder.py"}
    assert all(c.source for c in sent)


@each_experiment
def test_the_flaw_is_seen_and_the_card_says_so(
    bench: Bench, experiment: Experiment
) -> None:
    outcome = run(bench, experiment.name)
    assert outcome.tone == "no"
    assert {row.tone for row in outcome.rows} == {"no", "ok"}


@each_alone
def test_without_processes_a_run_needs_no_server(
    redis_client: redis.Redis, engine: Engine, experiment: Experiment
) -> None:
    bench = Bench(redis_client, engine, "rpl", 1042, keys.LOCKS_LAB)
    assert run(bench, experiment.name).tone == "no"


@each_experiment
def test_without_redis_a_run_fails(
    redis_down: redis.Redis, engine: Engine, tmp_path: Path, experiment: Experiment
) -> None:
    url = f"unix://{tmp_path}/nobody.sock"
    bench = Bench(redis_down, engine, "rpl", 1042, keys.LOCKS_LAB, url)
    with pytest.raises(RedisError):
        run(bench, experiment.name)


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
