import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from math import inf
from pathlib import Path

import msgspec
import pytest
import redis

from tests.conftest import RedisProcess, wait_until
from webapp.live import counts, servers, vitals
from webapp.live.counts import Counts
from webapp.live.servers import Totals
from webapp.live.vitals import Vitals, VitalsNow
from webapp.settings import Settings, from_environ

RESTARTED = "another"


def totals(at_s: float, amount: int, run_id: str = "one") -> Totals:
    return Totals(run_id, at_s, amount, amount, amount, amount)


def added(**trips: int) -> Counts:
    bounds = {"us100": 0.0001, "us200": 0.0002, "more": inf}
    return Counts(trips={bounds[name]: n for name, n in trips.items()})


def test_growth_is_divided_by_the_time_it_took():
    growth = totals(12.0, 500).growth(totals(10.0, 100))
    assert growth is not None
    assert (growth.ops_per_s, growth.evicted_per_s, growth.hits) == (200, 200, 400)


def test_the_first_totals_are_no_growth():
    assert totals(10.0, 5_000_000).growth(None) is None


@pytest.mark.parametrize(
    "later", [totals(11.0, 3), totals(11.0, 9_000_000, RESTARTED)], ids=["reset", "new"]
)
def test_totals_of_another_life_are_no_growth(later: Totals):
    assert later.growth(totals(10.0, 500)) is None


def test_counts_that_began_anew_added_nothing():
    assert Counts(hits=3, misses=900).since(Counts(hits=500)) == Counts()


def test_counts_say_what_was_added():
    before = Counts(hits=500, by_shoppers=7, trips={0.1: 4, inf: 5})
    later = Counts(hits=503, misses=1, by_shoppers=9, trips={0.1: 4, inf: 6})
    expected = Counts(hits=3, misses=1, by_shoppers=2, trips={0.1: 0, inf: 1})
    assert later.since(before) == expected


def test_a_percentile_is_linear_within_its_bucket():
    minute = [added(us100=50, us200=100, more=100)] * 2
    assert counts.percentile_us(minute, 0.75) == 150


def test_trips_beyond_the_last_bound_count_as_the_last_bound():
    assert counts.percentile_us([added(us100=0, us200=1, more=100)], 0.99) == 200


def test_without_trips_there_is_no_percentile():
    assert counts.percentile_us([Counts()] * 60, 0.99) is None


def test_valkey_is_called_by_its_own_name():
    info = servers.parse_info("redis_version:7.2.4\r\nvalkey_version:9.1.2\r\n")
    assert servers.server_name(info) == "Valkey 9.1.2"


COUNTING = """
from webapp.http.metrics import CACHE_READS, observe_trip
for outcome, traffic, n in [
    ("hit", "visitor", 6), ("miss", "shopper", 2), ("bypass", "visitor", 2)
]:
    CACHE_READS.labels("cache_aside", outcome, traffic).inc(n)
for role in ("cache", "durable"):
    for _ in range(50):
        observe_trip(role, 0.00018)
"""


@pytest.fixture
def worker_counts(tmp_path: Path) -> Callable[[], None]:
    """Has another process, as a worker would, add the counts above."""
    folder = tmp_path / "metrics"
    folder.mkdir()

    def add() -> None:
        environ = {"PROMETHEUS_MULTIPROC_DIR": str(folder), "PATH": ""}
        root = Path(vitals.__file__).parents[2]
        command = [sys.executable, "-c", COUNTING]
        subprocess.run(command, env=environ, cwd=root, check=True)

    return add


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return from_environ({"INSTANCE_PATH": str(tmp_path)})


@pytest.fixture
def limited(settings: Settings) -> Settings:
    urls = {role: f"fake://{role}" for role in settings.redis_urls}
    return msgspec.structs.replace(settings, redis_urls=urls)


def ticked(vitals_: Vitals, settings: Settings) -> VitalsNow:
    vitals_.tick()
    return vitals.read(settings.instance_path / vitals.FILE)


def test_counts_of_all_workers_are_added_up(
    limited: Settings, worker_counts: Callable[[], None]
):
    ticker = Vitals(limited)
    ticker.tick()
    worker_counts()
    worker_counts()
    seen = ticked(ticker, limited)
    assert seen.strip.hits[-2:] == [0, 12]
    assert (seen.strip.misses[-1], seen.strip.bypasses[-1]) == (4, 4)
    assert seen.strip.shoppers_share == 0.2
    assert seen.p99_us is not None
    assert 190 < seen.p99_us <= 200  # in the bucket from 150 to 200 µs


def test_what_was_counted_before_the_first_tick_is_no_bar_of_its_own(
    limited: Settings, worker_counts: Callable[[], None]
):
    worker_counts()
    assert sum(ticked(Vitals(limited), limited).strip.hits) == 0


def test_an_imitation_inside_a_worker_is_said_to_be_one(limited: Settings):
    seen = ticked(Vitals(limited), limited)
    assert seen.limited
    assert (seen.ops_per_s, seen.hit_rate, seen.clients) == (None, None, None)
    assert seen.down == []


def test_trouble_is_logged_once_and_ends_no_tick(
    limited: Settings, caplog: pytest.LogCaptureFixture
):
    folder = limited.instance_path / "gone"
    ticker = Vitals(msgspec.structs.replace(limited, instance_path=folder))
    ticker.tick()
    ticker.tick()
    assert len(caplog.records) == 1


def test_before_the_first_tick_nothing_is_known(settings: Settings):
    seen = vitals.now(settings, down=["cache"])
    assert (seen.ops_per_s, seen.down) == (None, ["cache"])
    assert [server.up for server in seen.servers] == [False, True]


@pytest.fixture
def on_server(settings: Settings, redis_process: RedisProcess) -> Settings:
    urls = dict.fromkeys(settings.redis_urls, redis_process.url)
    return msgspec.structs.replace(settings, redis_urls=urls)


@pytest.fixture
def client(redis_process: RedisProcess) -> Iterator[redis.Redis]:
    with redis_process.client() as client:
        yield client


@pytest.mark.server
def test_a_server_tells_its_load_and_memory(on_server: Settings, client: redis.Redis):
    ticker = Vitals(on_server)
    ticker.tick()
    client.config_set("maxmemory", "64mb")
    client.set("there", 1)
    for name in ("there", "there", "there", "not there"):
        client.get(name)
    seen = ticked(ticker, on_server)
    cache = seen.servers[0]
    assert seen.hit_rate == 0.75
    assert cache.ops_per_s is not None
    assert cache.ops_per_s >= 5
    assert (cache.keys, cache.memory_max_bytes) == (1, 64 * 1024**2)
    assert cache.maxmemory_policy == "noeviction"
    assert re.fullmatch(r"(Valkey|Redis) \d+\.\d+\.\d+", cache.name)


@pytest.mark.server
def test_what_left_the_cache_is_told_by_the_second(
    on_server: Settings, client: redis.Redis
):
    ticker = Vitals(on_server)
    ticker.tick()
    client.config_set("maxmemory-policy", "allkeys-random")
    for number in range(50):
        client.set(f"there:{number}", "x" * 1000)
    client.set("short", 1, px=1)
    wait_until(lambda: not client.exists("short"))
    client.config_set("maxmemory", client.info("memory")["used_memory"] - 20_000)
    client.set("one more", 1)
    seen = ticked(ticker, on_server).cache_series
    assert seen["evicted"][-1] > 0
    assert seen["expired"][-1] == 1
    assert seen["memory_bytes"][-1] > 100_000
    assert {len(series) for series in seen.values()} == {60}


@pytest.mark.server
def test_two_roles_on_one_server_count_once(on_server: Settings, client: redis.Redis):
    clients = len(client.client_list())
    seen = ticked(Vitals(on_server), on_server)
    assert len(seen.servers) == 2
    assert seen.clients == clients + 2  # one connection a role, to look


@pytest.mark.server
def test_the_commands_that_looking_costs_are_told(on_server: Settings):
    spent = ticked(Vitals(on_server), on_server).housekeeping
    assert [(c.node, c.name, c.error) for c in spent] == [
        ("cache", "INFO", None),
        ("durable", "INFO", None),
    ]
    assert re.fullmatch(r"text \d+\.\d KB", spent[0].reply or "")


@pytest.mark.server
def test_a_killed_server_is_down_and_keeps_its_name(
    on_server: Settings, redis_process: RedisProcess
):
    ticker = Vitals(on_server)
    name = ticked(ticker, on_server).servers[0].name
    redis_process.kill()
    seen = ticked(ticker, on_server)
    assert seen.down == ["cache", "durable"]
    assert (seen.ops_per_s, seen.clients, seen.servers[0].keys) == (None, None, None)
    assert seen.servers[0].name == name


@pytest.mark.server
def test_a_restarted_server_adds_no_absurd_numbers(
    on_server: Settings, redis_process: RedisProcess, client: redis.Redis
):
    ticker = Vitals(on_server)
    client.set("there", 1)
    for _ in range(500):
        client.get("there")
    ticker.tick()
    redis_process.kill()
    ticker.tick()
    redis_process.start()
    client.connection_pool.disconnect()
    for _ in range(1000):  # more than the server before it had
        client.get("there")
    ticker.tick()
    seen = ticked(ticker, on_server)
    assert seen.down == []
    assert min(seen.ops_series) >= 0
    assert sum(seen.ops_series[:-1]) == 0
    assert seen.hit_rate is None


@pytest.mark.server
def test_a_server_that_hangs_costs_its_timeout_only(
    on_server: Settings, redis_process: RedisProcess
):
    ticker = Vitals(on_server)
    ticker.tick()
    redis_process.send(signal.SIGSTOP)
    began = time.monotonic()
    seen = ticked(ticker, on_server)
    elapsed_s = time.monotonic() - began
    redis_process.send(signal.SIGCONT)
    assert seen.down == ["cache", "durable"]
    assert elapsed_s < 1.5  # 0.5 s a role


@pytest.mark.server
def test_after_a_pause_the_server_is_up_again(
    on_server: Settings, redis_process: RedisProcess
):
    ticker = Vitals(on_server)
    redis_process.send(signal.SIGSTOP)
    assert ticked(ticker, on_server).down
    redis_process.send(signal.SIGCONT)
    wait_until(lambda: not ticked(ticker, on_server).down)
