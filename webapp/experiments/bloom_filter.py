"""Break the Bloom filter: have none, lose it, outgrow it."""

from random import Random

from webapp.experiments import (
    Bench,
    Control,
    Experiment,
    Outcome,
    Row,
    compare,
    percent,
    priced,
    running,
)
from webapp.patterns.bloom_filter import BloomFilter
from webapp.patterns.cache_aside import CacheAside

_TTL_MS = 30_000
_CACHE = CacheAside(ttl_ms=_TTL_MS, missing_ttl_ms=_TTL_MS)
_IDS = 10_000  # that exist, and that filters are sized for
_PLANNED = 0.01


# Ask for what does not exist


def run_random_ids(bench: Bench, *, requests: int) -> Outcome:
    """Ids that nothing has, each asked for once: as a scan of the site would."""
    chance = Random()
    asked = [f"none-{chance.getrandbits(48):x}" for _ in range(requests)]
    bloom = BloomFilter.sized(_IDS, error_rate=_PLANNED)
    with running(bench, "random") as run:
        with run.recording(f"{requests} unknown ids, no filter") as bare:
            for id in asked:
                # Flaw: no cache has an answer to a question that was never asked.
                priced.read_price(bench, _CACHE, priced.entry(run), id)
            kept = int(bench.client.exists(*run.keys))
        with run.recording("Build the filter"):
            key = run.key("filter")
            bloom.build(bench.client, key, ids=_existing())
        with run.recording(f"{requests} unknown ids, a filter first") as filtered:
            passed = 0
            for id in asked:
                if bloom.has(bench.client, key, id):
                    passed += 1
                    priced.read_price(bench, _CACHE, priced.entry(run), id)
    queries = len(bare.sql), len(filtered.sql)
    bare.verdict = "no", f"{queries[0]} queries"
    filtered.verdict = "ok", f"{queries[1]} queries"
    sides = "no filter", "a filter first"
    return Outcome(
        rows=[
            *compare("Queries", sides, queries, most=requests),
            *compare("Keys left behind", sides, (kept, passed), most=requests),
        ],
        summary=f"{requests} ids that do not exist: {queries[0]} queries without a "
        f"filter, {queries[1]} with it.",
        tone="no" if queries[0] > queries[1] else "ok",
        verdict=f"{queries[0]} queries",
        recordings=run.recordings,
    )


# Lose the filter


def run_lost(bench: Bench, *, products: int) -> Outcome:
    """A filter is evicted; then products that exist are asked for."""
    bloom = BloomFilter.sized(_IDS, error_rate=_PLANNED)
    wanted = list(_existing())[:products]
    with running(bench, "lost") as run:
        key = run.key("filter")
        with run.recording("Build the filter, and lose it"):
            bloom.build(bench.client, key, ids=_existing())
            bench.client.delete(key)
        with run.recording("Believe every 0") as believed:
            # Flaw: the bits of a key that is not there are 0, too.
            denied = sum(
                not all(bench.client.getbit(key, place) for place in bloom.places(id))
                for id in wanted
            )
        with run.recording("Ask for the mark, too") as marked:
            answers = bloom.has_each(bench.client, key, wanted)
    wrong = denied, sum(answer is False for answer in answers)
    believed.verdict, marked.verdict = ("no", f"{wrong[0]} denied"), ("ok", "no filter")
    sides = "bits only", "with a mark"
    return Outcome(
        rows=compare("Products denied", sides, wrong, most=products),
        summary=f"{wrong[0]} of {products} products that exist are denied by bits of "
        f"a lost key. With a mark: {wrong[1]}.",
        tone="no" if wrong[0] else "ok",
        verdict=f"{wrong[0]} denied",
        recordings=run.recordings,
    )


# Outgrow it


def run_overfull(bench: Bench, *, times: int, asked: int) -> Outcome:
    """A filter of a planned size, with the ids planned, and with more of them."""
    planned = BloomFilter.sized(_IDS, error_rate=_PLANNED)
    unknown = [f"none-{n}" for n in range(asked)]
    measured = []
    with running(bench, "overfull") as run:
        for factor in (1, times):
            key, ids_count = run.key(f"filter-{factor}"), _IDS * factor
            with run.recording(f"{ids_count:,} ids in a filter for {_IDS:,}") as own:
                # Flaw: the shop grew, and its filter did not.
                size = planned.build(bench.client, key, ids=_existing(ids_count))
                passed = sum(map(bool, planned.has_each(bench.client, key, unknown)))
            measured.append(passed / asked)
            tone = "ok" if factor == 1 else "no"
            own.verdict = tone, f"{percent(passed / asked)} pass"
    within, beyond = measured
    longest = max(_PLANNED, *measured)
    return Outcome(
        rows=[
            Row("Planned to pass", percent(_PLANNED), "ok", _PLANNED / longest),
            Row(f"{_IDS:,} ids, measured", percent(within), "ok", within / longest),
            Row(
                f"{_IDS * times:,} ids, measured",
                percent(beyond),
                "no",
                beyond / longest,
            ),
            Row("Bytes of either", f"{size:,}", "ok"),
        ],
        summary=f"{percent(within)} of {asked:,} unknown ids pass as planned, "
        f"{percent(beyond)} with {times} times the ids in the same {size:,} bytes.",
        tone="no" if beyond > 2 * _PLANNED else "ok",
        verdict=f"{percent(beyond)} pass",
        recordings=run.recordings,
    )


def _existing(count: int = _IDS) -> list[str]:
    return [f"id-{n}" for n in range(count)]


EXPERIMENTS = (
    Experiment(
        name="random-ids",
        title="Ask for what does not exist",
        hypothesis="Each unknown id is a miss, a query, and a remembered nothing. A "
        "filter answers for nearly all of them.",
        controls=(Control("requests", "Unknown ids", "range", 20, 200, 20, 100),),
        run=run_random_ids,
    ),
    Experiment(
        name="lost-filter",
        title="Lose the filter",
        hypothesis="The bits of a key that is not there are 0. Whoever believes them "
        "denies everything that exists.",
        controls=(Control("products", "Products", "range", 10, 50, 10, 30),),
        run=run_lost,
    ),
    Experiment(
        name="overfull",
        title="Outgrow the filter",
        hypothesis="With as many ids as planned, as many unknown ones pass as planned. "
        "With more ids, far more pass.",
        controls=(
            Control("times", "Times the ids planned", "range", 2, 5, 1, 3),
            Control("asked", "Unknown ids", "range", 500, 5000, 500, 2000),
        ),
        run=run_overfull,
    ),
)
