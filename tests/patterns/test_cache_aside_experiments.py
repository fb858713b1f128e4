"""Break it: what each run shows, and that it leaves nothing behind."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import redis
from redis.exceptions import RedisError
from sqlalchemy import Engine, func, select

from webapp import keys
from webapp.connection.recorder import Command, Recording, recording
from webapp.experiments import (
    BadControl,
    Bench,
    Control,
    Experiment,
    Outcome,
    cache_aside,
    duration,
    priced,
    tag_invalidation,
    write_through,
)
from webapp.experiments.cache_aside import EXPERIMENTS
from webapp.patterns.cache_aside import Entry
from webapp.shop import models
from webapp.shop.database import open_database

BY_NAME = {experiment.name: experiment for experiment in EXPERIMENTS}
of_the_catalog = (
    *EXPERIMENTS,
    *write_through.EXPERIMENTS,
    *tag_invalidation.EXPERIMENTS,
)
each_experiment = pytest.mark.parametrize(
    "experiment", of_the_catalog, ids=lambda experiment: experiment.name
)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """A shop of one product, which nobody bought yet."""
    engine = open_database(f"sqlite:///{tmp_path_factory.mktemp('shop') / 'shop.db'}")
    models.metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(
            models.category.insert(), {"id": 1, "slug": "kitchen", "name": "Kitchen"}
        )
        price, stock = {"price_cents": 4850}, {"stock": 37}
        seeded = {"seeded_price_cents": 4850, "seeded_stock": 37}
        row = {"id": 1042, "category_id": 1, "name": "Kettle", "version": 1}
        connection.execute(models.product.insert(), row | price | stock | seeded)
    yield engine
    engine.dispose()


@pytest.fixture
def bench(redis_client: redis.Redis, engine: Engine) -> Bench:
    return Bench(redis_client, engine, "rpl", 1042)


def run(bench: Bench, name: str, **form: str) -> Outcome:
    experiment = BY_NAME[name]
    return experiment.run(bench, **experiment.parse(form))


def run_small(bench: Bench, experiment: Experiment) -> Outcome:
    """With every control at its least."""
    return experiment.run(bench, **{c.name: c.min for c in experiment.controls})


def shown(outcome: Outcome) -> dict[str, str]:
    return {row.label: row.value for row in outcome.rows}


def commands(outcome: Outcome) -> list[Command]:
    return [c for own in outcome.recordings for t in own.trips for c in t.commands]


def scratch_rows(engine: Engine) -> int:
    with engine.connect() as connection:
        count = select(func.count()).select_from(models.scratch)
        return connection.execute(count).scalar_one()


# All of them


@each_experiment
def test_receipts_see_inside_lua_when_the_request_does(
    bench: Bench, experiment: Experiment
) -> None:
    with recording(Recording("request", see_inside=True)):
        outcome = run_small(bench, experiment)
    scripts = [c for c in commands(outcome) if c.args[0] == "EVALSHA"]
    assert all(command.calls for command in scripts)


def test_a_read_that_redis_did_not_answer_is_no_measurement(
    redis_down: redis.Redis, engine: Engine
) -> None:
    entry = Entry(
        keys.key("rpl", keys.LAB, "r", "a"), keys.key("rpl", keys.LAB, "r", "b")
    )
    with pytest.raises(RedisError):
        cache_aside.read_cached(Bench(redis_down, engine, "rpl", 1042), entry)


@pytest.mark.parametrize("name", ["no-ttl", "forgotten-edit"])
def test_a_run_that_fails_half_way_leaves_no_key_and_no_row(
    bench: Bench, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[bytes] = []

    def fails(*_: object, **__: object) -> int:
        found.extend(bench.client.keys("*"))
        raise LookupError

    monkeypatch.setattr(priced, "until", fails)
    with pytest.raises(LookupError):
        run(bench, name)
    assert found
    assert bench.client.keys("*") == []
    assert scratch_rows(bench.engine) == 0


# Read without a cache


def test_without_a_cache_every_read_asks_the_database(bench: Bench) -> None:
    outcome = run(bench, "no-cache", reads="5")
    bare, cached = outcome.recordings
    assert (len(bare.sql), len(bare.trips)) == (20, 0)
    assert (len(cached.sql), len(cached.trips)) == (4, 6)


def test_the_rows_count_the_queries_that_were_made(bench: Bench) -> None:
    rows = shown(run(bench, "no-cache", reads="5"))
    assert rows["Queries, 5 reads without"] == "20"
    assert rows["Queries, 5 reads with"] == "4"


def test_a_product_that_does_not_exist_is_cached_too(bench: Bench) -> None:
    outcome = run(replace(bench, product_id=9), "no-cache", reads="5")
    assert [len(own.sql) for own in outcome.recordings] == [5, 1]


# Write without a TTL


def test_values_without_a_ttl_stay_and_the_others_go(bench: Bench) -> None:
    rows = shown(run(bench, "no-ttl", values="20"))
    assert rows["Expiry, SET"] == "no expiry"
    assert rows["Expiry, SET PX"].endswith("ms")
    assert (rows["Left, SET"], rows["Left, SET PX"]) == ("20", "0")


def test_the_memory_left_behind_is_what_the_server_says(
    server_client: redis.Redis, engine: Engine
) -> None:
    outcome = run(Bench(server_client, engine, "rpl", 1042), "no-ttl", values="20")
    sizes = [c.reply for c in commands(outcome) if c.args[0] == "MEMORY USAGE"]
    assert len(sizes) == 20
    assert shown(outcome)["Memory they keep"] == f"{sum(sizes):,}\u00a0B"


# Edit and forget the cache


def test_a_forgotten_edit_serves_the_old_price_until_the_ttl_ends(bench: Bench) -> None:
    outcome = run(bench, "forgotten-edit", ttl_ms="300")
    wrong = int(shown(outcome)["Wrong prices, forgotten"])
    forgot = outcome.recordings[0]
    assert wrong == len([t for t in forgot.trips if t.commands[0].reply == b"2499"])
    assert wrong > 1
    assert outcome.tone == "no"


def test_an_invalidated_edit_serves_no_wrong_price(bench: Bench) -> None:
    rows = shown(run(bench, "forgotten-edit", ttl_ms="300"))
    assert rows["Wrong prices, invalidated"] == "0"


# Race a reader against a writer


def test_without_a_lease_the_old_price_comes_back(bench: Bench) -> None:
    unguarded, _ = run(bench, "stale-set").lanes
    assert unguarded.tone == "no"
    assert unguarded.steps[-1].reply == "€\u00a024.99"


def test_with_a_lease_the_same_schedule_serves_the_new_price(bench: Bench) -> None:
    _, guarded = run(bench, "stale-set").lanes
    assert guarded.tone == "ok"
    assert guarded.steps[-1].reply == "€\u00a019.99"
    assert guarded.steps[-2].reply == "0, refused"


def test_both_lanes_follow_the_same_schedule(bench: Bench) -> None:
    unguarded, guarded = run(bench, "stale-set").lanes
    actors = ["Reader", "Reader", "Writer", "Writer", "Reader", "Anyone"]
    assert [step.actor for step in unguarded.steps] == actors
    assert [step.actor for step in guarded.steps] == actors


def test_every_step_of_the_replay_is_a_receipt_of_its_own(bench: Bench) -> None:
    outcome = run(bench, "stale-set")
    steps = [step for lane in outcome.lanes for step in lane.steps]
    assert [step.recording for step in steps] == outcome.recordings
    assert [own.cause for own in outcome.recordings] == [
        "Reader: GET",
        "Reader: SELECT",
        "Writer: UPDATE",
        "Writer: DEL",
        "Reader: SET",
        "Anyone: GET",
        "Reader: fetch",
        "Reader: SELECT",
        "Writer: UPDATE",
        "Writer: DEL",
        "Reader: store",
        "Anyone: fetch, SELECT, store",
    ]


def test_a_step_shows_what_it_sent(bench: Bench) -> None:
    unguarded, guarded = run(bench, "stale-set").lanes
    sent = unguarded.steps[4].recording.trips[0].commands[0]
    assert unguarded.steps[4].command == " ".join(map(str, sent.args))
    assert guarded.steps[0].command.startswith("EVALSHA cache_aside/fetch rpl:catalog:")


# Cache an empty value


@pytest.mark.parametrize("form", [{}, {"missing": "1"}], ids=["empty", "missing"])
def test_what_is_empty_is_asked_for_again_until_none_means_a_miss(
    bench: Bench, form: dict[str, str]
) -> None:
    outcome = run(bench, "empty-value", reads="5", **form)
    assert [len(own.sql) for own in outcome.recordings] == [5, 1]
    assert list(shown(outcome).values()) == ["5", "1"]


# Words and controls


@pytest.mark.parametrize(
    ("us", "words"),
    [
        (0, "0 ms"),
        (127, "127 µs"),
        (1_000, "1.00 ms"),
        (38_520, "38.5 ms"),
        (128_400, "128 ms"),
        (1_930_000, "1.93 s"),
    ],
)
def test_a_duration_has_three_digits_and_its_unit(us: int, words: str) -> None:
    assert duration(us).replace("\u00a0", " ") == words


READS = Control("reads", "Reads", "range", min=5, max=40, step=5, value=10)


@pytest.mark.parametrize("text", ["5", "10", "40"])
def test_a_control_takes_what_it_can_show(text: str) -> None:
    assert READS.parse(text) == int(text)


@pytest.mark.parametrize(
    "text", ["", "4", "7", "45", "-5", "1e1", "5.0", " 5", "\u0665", "five", "9" * 5000]
)
def test_a_control_refuses_the_rest_and_says_why(text: str) -> None:
    with pytest.raises(
        BadControl, match=r"Reads: a whole number from 5 to 40 in steps"
    ):
        READS.parse(text)


def test_a_switch_that_the_form_leaves_out_is_off() -> None:
    assert BY_NAME["empty-value"].parse({"reads": "5"}) == {"reads": 5, "missing": 0}
