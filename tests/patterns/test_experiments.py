"""Break it: what every run promises, whatever it is that it shows.

What a run of one room shows is tested beside the other tests of that room.
"""

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from types import SimpleNamespace

import pytest
import redis
from redis.crc import key_slot
from redis.exceptions import RedisError
from sqlalchemy import Engine

import webapp.experiments
from tests.patterns.conftest import keys_of
from webapp import keys
from webapp.connection.embedded import EmbeddedServer
from webapp.connection.recorder import Command
from webapp.experiments import (
    Bench,
    Control,
    Experiment,
    Outcome,
    activity_feed,
    bloom_filter,
    cache_aside,
    distributed_lock,
    leaderboard,
    pub_sub,
    rate_limiter,
    redlock,
    response_cache,
    session_store,
    stampede,
    streams,
    tag_invalidation,
    transactions,
    unique_visitors,
    write_through,
)
from webapp.rooms import PAGES
from webapp.shop import models
from webapp.shop.database import open_database

# What a connection says for itself: also SUBSCRIBE, when it was cut and is back.
OF_CONNECTIONS = {"CLIENT", "HELLO", "PING", "ROLE", "SUBSCRIBE"}

least: Callable[[Control], int] = attrgetter("min")
first: Callable[[Control], int] = attrgetter("value")


@dataclass(frozen=True)
class Room:
    experiments: tuple[Experiment, ...]
    families: tuple[keys.Family, ...]  # of its scratch keys, the bench's own first
    files: frozenset[str]  # with the lines that send its commands
    at: Callable[[Control], int] = least  # where its controls stand
    kept: frozenset[str] = frozenset()  # experiments that show a promise kept
    measured: bool = False  # a time or a size decides whether its flaws are seen

    def run(self, experiment: Experiment, bench: Bench) -> Outcome:
        return experiment.run(
            bench, **{c.name: self.at(c) for c in experiment.controls}
        )


ROOMS = {
    "activity_feed": Room(
        activity_feed.EXPERIMENTS, (keys.ACTIVITY_LAB,), frozenset({"activity_feed"})
    ),
    "bloom_filter": Room(
        bloom_filter.EXPERIMENTS,
        (keys.LAB,),
        frozenset({"bloom_filter", "cache_aside"}),
        measured=True,
    ),
    "cache_aside": Room(
        cache_aside.EXPERIMENTS,
        (keys.LAB,),
        frozenset({"cache_aside", "priced"}),
        measured=True,
    ),
    "distributed_lock": Room(
        distributed_lock.EXPERIMENTS,
        (keys.LOCKS_LAB, keys.LOCKS_LAB_WAKE),
        frozenset({"distributed_lock"}),
    ),
    "leaderboard": Room(
        leaderboard.EXPERIMENTS,
        (keys.BOARD_LAB,),
        frozenset({"leaderboard"}),
        measured=True,
    ),
    "pub_sub": Room(
        pub_sub.EXPERIMENTS, (keys.FEED_LAB,), frozenset({"pub_sub"}), at=first
    ),
    "rate_limiter": Room(
        rate_limiter.EXPERIMENTS,
        (keys.LIMITS_LAB, keys.LIMITS_LAB_LOG),
        frozenset({"rate_limiter", "fixed_window", "sliding_window_log"}),
        at=first,
        kept=frozenset({"retry"}),
    ),
    "response_cache": Room(
        response_cache.EXPERIMENTS,
        (keys.LAB,),
        frozenset({"response_cache", "cache_aside", "priced"}),
    ),
    "session_store": Room(
        session_store.EXPERIMENTS, (keys.SESSIONS_LAB,), frozenset({"session_store"})
    ),
    "stampede": Room(
        stampede.EXPERIMENTS,
        (keys.LAB, keys.LAB_WAKE),
        frozenset(
            {"stampede", "locked_flight", "_copies", "distributed_lock", "priced"}
        ),
    ),
    "streams": Room(
        streams.EXPERIMENTS,
        (keys.STREAMS_LAB, keys.STREAMS_LAB_NOTE, keys.STREAMS_LAB_TOTALS),
        frozenset(
            {"streams", "pipeline", "consumer_group", "bounded_stream", "dead_letters"}
        ),
        at=first,
    ),
    "tag_invalidation": Room(
        tag_invalidation.EXPERIMENTS,
        (keys.LAB,),
        frozenset({"tag_invalidation", "cache_aside", "priced"}),
        measured=True,
    ),
    "transactions": Room(
        transactions.EXPERIMENTS, (keys.ATOMICITY_LAB,), frozenset({"transactions"})
    ),
    "unique_visitors": Room(
        unique_visitors.EXPERIMENTS,
        (keys.VISITORS_LAB,),
        frozenset({"unique_visitors"}),
        measured=True,
    ),
    "write_through": Room(
        write_through.EXPERIMENTS,
        (keys.LAB,),
        frozenset({"write_through", "cache_aside", "priced"}),
        measured=True,
    ),
}
# Their workers are processes, which cannot reach an imitation.
WITH_PROCESSES = {
    "distributed_lock": Room(
        distributed_lock.PROCESS_EXPERIMENTS,
        (keys.LOCKS_LAB, keys.LOCKS_LAB_WAKE),
        frozenset({"distributed_lock", "holder"}),
    ),
}
# They start servers of their own, and ask no other one.
WITH_SERVERS = {
    "redlock": Room(
        redlock.EXPERIMENTS,
        (keys.LOCKS_LAB,),
        frozenset({"redlock", "distributed_lock"}),
    ),
}


def each_of(*groups: dict[str, Room]) -> pytest.MarkDecorator:
    cases = [
        pytest.param(room, experiment, id=f"{name}-{experiment.name}")
        for rooms in groups
        for name, room in rooms.items()
        for experiment in room.experiments
    ]
    return pytest.mark.parametrize(("room", "experiment"), cases)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The URL of a shop of one product, which nobody bought yet."""
    url = f"sqlite:///{tmp_path_factory.mktemp('shop') / 'shop.db'}"
    engine = open_database(url)
    models.metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(
            models.category.insert(), {"id": 1, "slug": "kitchen", "name": "Kitchen"}
        )
        price, stock = {"price_cents": 4850}, {"stock": 37}
        seeded = {"seeded_price_cents": 4850, "seeded_stock": 37}
        row = {"id": 1042, "category_id": 1, "name": "Kettle", "version": 1}
        connection.execute(models.product.insert(), row | price | stock | seeded)
    engine.dispose()
    return url


@pytest.fixture
def engine(shop: str) -> Iterator[Engine]:
    engine = open_database(shop)
    yield engine
    engine.dispose()


@pytest.fixture
def token(monkeypatch: pytest.MonkeyPatch) -> str:
    """What makes the name of the next run its own, drawn here."""
    token = secrets.token_hex(3)
    drawn = SimpleNamespace(token_hex=lambda _: token)
    monkeypatch.setattr(webapp.experiments, "secrets", drawn)
    return token


def bench_of(room: Room, client: redis.Redis, engine: Engine, url: str = "") -> Bench:
    return Bench(client, engine, "rpl", 1042, room.families[0], url)


def sent(outcome: Outcome) -> list[Command]:
    """All but what connections said for themselves."""
    commands = [c for own in outcome.recordings for t in own.trips for c in t.commands]
    return [c for c in commands if c.args[0] not in OF_CONNECTIONS]


def rows_of(engine: Engine) -> list[str]:
    """The whole database as SQL, and the names of its temporary tables."""
    with engine.connect() as connection:
        temporary = connection.exec_driver_sql("SELECT name FROM sqlite_temp_master")
        driver = connection.connection.driver_connection
        assert driver is not None
        return [*temporary.scalars(), *driver.iterdump()]


# The promises


@contextmanager
def leaves_the_database_as_it_was(engine: Engine) -> Iterator[None]:
    """Also the product, which is a real one."""
    before = rows_of(engine)
    yield
    assert rows_of(engine) == before


def leaves_no_key(client: redis.Redis) -> None:
    assert client.keys("*") == []


def uses_only_scratch_keys_of_a_group_of_its_own(
    room: Room, outcome: Outcome, token: str
) -> None:
    named = {key for command in sent(outcome) for key in keys_of(command)}
    assert named
    families = [keys.family_of("rpl", key) for key in named]
    assert all(family in room.families for family in families), named
    assert len({key_slot(key.encode()) for key in named}) == 1
    assert all(f"-{token}}}" in key for key in named), named


def names_the_line_that_sent_each_command(room: Room, outcome: Outcome) -> None:
    assert [c.args for c in sent(outcome) if not c.source] == []
    assert {Path(c.source[0]).stem for c in sent(outcome) if c.source} <= room.files


def fills_its_bars_between_nothing_and_all(outcome: Outcome) -> None:
    shares = [row.share for row in outcome.rows if row.share is not None]
    assert all(0 <= share <= 1 for share in shares), shares


def shows_each_step_with_its_receipt(experiment: Experiment, outcome: Outcome) -> None:
    assert bool(outcome.lanes) == experiment.replayed
    steps = [step for lane in outcome.lanes for step in lane.steps]
    assert all(step.recording in outcome.recordings for step in steps)


def says_what_was_seen(room: Room, experiment: Experiment, outcome: Outcome) -> None:
    """Beside the flaw is what is right, unless the card shows a promise kept."""
    kept = experiment.name in room.kept
    assert outcome.tone == ("ok" if kept else "no")
    assert {row.tone for row in outcome.rows} == {"wait" if kept else "no", "ok"}
    lanes = ["ok", "ok"] if kept else ["no", "ok"]
    assert [lane.tone for lane in outcome.lanes] == lanes * experiment.replayed


def keeps_its_promises(
    room: Room, experiment: Experiment, bench: Bench, token: str
) -> None:
    """Run it once. Whether it left a key is for the caller, who knows the server."""
    with leaves_the_database_as_it_was(bench.engine):
        outcome = room.run(experiment, bench)
    uses_only_scratch_keys_of_a_group_of_its_own(room, outcome, token)
    names_the_line_that_sent_each_command(room, outcome)
    fills_its_bars_between_nothing_and_all(outcome)
    shows_each_step_with_its_receipt(experiment, outcome)
    if not room.measured:
        says_what_was_seen(room, experiment, outcome)


# Who keeps them


@each_of(ROOMS)
def test_a_run_keeps_its_promises(
    redis_client: redis.Redis,
    engine: Engine,
    token: str,
    room: Room,
    experiment: Experiment,
) -> None:
    """With no server to give to a process: these runs need none."""
    keeps_its_promises(room, experiment, bench_of(room, redis_client, engine), token)
    leaves_no_key(redis_client)


@each_of(WITH_PROCESSES)
def test_a_run_with_processes_keeps_its_promises(
    server: EmbeddedServer,
    server_client: redis.Redis,
    engine: Engine,
    token: str,
    room: Room,
    experiment: Experiment,
) -> None:
    bench = bench_of(room, server_client, engine, f"unix://{server.socket}")
    keeps_its_promises(room, experiment, bench, token)
    leaves_no_key(server_client)


@each_of(WITH_SERVERS)
def test_a_run_with_servers_of_its_own_keeps_its_promises_without_the_apps(
    redis_down: redis.Redis,
    engine: Engine,
    token: str,
    room: Room,
    experiment: Experiment,
) -> None:
    keeps_its_promises(room, experiment, bench_of(room, redis_down, engine), token)


@each_of(ROOMS, WITH_PROCESSES)
def test_without_redis_a_run_fails_and_leaves_no_row(
    redis_down: redis.Redis,
    engine: Engine,
    tmp_path: Path,
    room: Room,
    experiment: Experiment,
) -> None:
    bench = bench_of(room, redis_down, engine, f"unix://{tmp_path}/nobody.sock")
    with leaves_the_database_as_it_was(engine), pytest.raises(RedisError):
        room.run(experiment, bench)


@each_of(ROOMS, WITH_PROCESSES, WITH_SERVERS)
def test_a_card_has_at_most_two_controls_and_allows_their_first_values(
    room: Room, experiment: Experiment
) -> None:
    assert len(experiment.controls) <= 2
    assert experiment.parse({}) == {c.name: c.value for c in experiment.controls}


def test_no_room_is_left_out() -> None:
    rooms = {room for page in PAGES for room in page.rooms}
    assert rooms == ROOMS.keys() | WITH_SERVERS.keys()
