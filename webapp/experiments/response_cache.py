"""Break the response cache: too many names, too few, and nobody who voids."""

from collections.abc import Callable
from functools import partial
from itertools import islice, permutations
from urllib.parse import urlencode

import msgspec
import redis

from webapp.experiments import (
    Bench,
    Control,
    Experiment,
    Outcome,
    Run,
    compare,
    priced,
    running,
)
from webapp.experiments.priced import NEW_CENTS, OLD_CENTS
from webapp.patterns.cache_aside import CacheAside
from webapp.patterns.response_cache import Answer, Names, ResponseCache, digest
from webapp.shop import scratch

_TTL_MS = 30_000
_CACHE = ResponseCache(CacheAside(ttl_ms=_TTL_MS), generation_ms=_TTL_MS)
_ASKED = {"category": "kitchen", "limit": "20", "after": "0", "utm": "mail"}
_KNOWN = ("category", "limit", "after")

Body = dict[str, object]


def read_kept(bench: Bench, names: Names, compute: Callable[[], Body]) -> Answer:
    """An answer through the cache; without Redis there is nothing to show."""
    answer = _CACHE.read(
        bench.client,
        names,
        compute=lambda: msgspec.json.encode(compute()),
        check=msgspec.json.decode,
    )
    if answer.outcome == "bypass":
        raise redis.ConnectionError("Redis did not answer during the experiment")
    return answer


def names_of(run: Run, route: str, rest: str) -> Names:
    """Scratch keys of one answer; the same for the same route and rest."""
    return Names(
        generation=run.key(f"{route}-generation"),
        answer=run.key(f"{route}-{rest}"),
        lease=run.key(f"{route}-{rest}-lease"),
    )


def _price(bench: Bench, run: Run) -> Body:
    """What the endpoint computes: a real query."""
    return {"price_cents": scratch.scratch_price(bench.engine, run.id)}


# Take the URL as it comes


def run_unsorted(bench: Bench, *, clients: int) -> Outcome:
    """Each client writes the same parameters in another order, one of them unknown."""
    urls = [dict(pairs) for pairs in islice(permutations(_ASKED.items()), clients)]
    with running(bench, "unsorted") as run, priced.row(bench, run):
        with run.recording(f"{clients} clients, the URL as it comes") as raw:
            # Flaw: the same question has as many names as there are ways to write it.
            as_they_come = [_written(run, url) for url in urls]
            for names in as_they_come:
                read_kept(bench, names, lambda: _price(bench, run))
        with run.recording(f"{clients} clients, known parameters, sorted") as sorted_:
            for url in urls:
                known = {name: url[name] for name in _KNOWN}
                names = names_of(run, "sorted", digest(known))
                read_kept(bench, names, lambda: _price(bench, run))
    keys = len({names.answer for names in as_they_come}), 1
    loads = len(raw.sql), len(sorted_.sql)
    raw.verdict, sorted_.verdict = ("no", f"{loads[0]} queries"), ("ok", "1 query")
    sides = "as it comes", "sorted"
    return Outcome(
        rows=[
            *compare("Queries", sides, loads, most=clients),
            *compare("Keys", sides, keys, most=clients),
        ],
        summary=f"{clients} clients ask the same: {loads[0]} queries and {keys[0]} "
        f"keys where the URL is the name, {loads[1]} and {keys[1]} where its known "
        "parameters are sorted.",
        tone="no" if loads[0] > loads[1] else "ok",
        verdict=f"{keys[0]} keys",
        recordings=run.recordings,
    )


def _written(run: Run, url: dict[str, str]) -> Names:
    return names_of(run, "raw", digest({"query": urlencode(url)}))


# Keep a personal answer


def run_personal(bench: Bench, *, visitors: int) -> Outcome:
    """An answer with a name in it, kept under a route that does not know names."""
    people = [f"visitor-{n + 1}" for n in range(visitors)]
    with running(bench, "personal") as run:
        with run.recording(f"{visitors} visitors, one kept answer") as kept:
            names = names_of(run, "account", "none")
            # Flaw: the answer depends on who asks, and its name does not.
            bodies = [
                read_kept(bench, names, partial(_greeting, person)).body
                for person in people
            ]
        with run.recording(f"{visitors} visitors, the rest is kept") as apart:
            names = names_of(run, "public", "none")
            own = [
                _joined(read_kept(bench, names, lambda: {"open": True}).body, person)
                for person in people
            ]
    wrong = _others(bodies, people), _others(own, people)
    kept.verdict, apart.verdict = ("no", "another's"), ("ok", "one's own")
    sides = "whole answer kept", "public part kept"
    return Outcome(
        rows=compare("Answers of another", sides, wrong, most=visitors),
        summary=f"{wrong[0]} of {visitors} visitors are called by the name of the "
        f"first. With only the public part kept: {wrong[1]}.",
        tone="no" if wrong[0] else "ok",
        verdict=f"{wrong[0]} of another",
        recordings=run.recordings,
    )


def _greeting(person: str) -> Body:
    return {"name": person, "open": True}


def _joined(body: bytes, person: str) -> bytes:
    """The personal part is added to what was kept, for each visitor anew."""
    return msgspec.json.encode(msgspec.json.decode(body) | {"name": person})


def _others(bodies: list[bytes], people: list[str]) -> int:
    return sum(
        msgspec.json.decode(body)["name"] != person
        for body, person in zip(bodies, people, strict=True)
    )


# Leave it to the TTL


def run_left_to_the_ttl(bench: Bench, *, pages: int) -> Outcome:
    """A price is edited while it is on many kept pages."""
    with running(bench, "void") as run, priced.row(bench, run):
        every = [names_of(run, "products", f"page-{n}") for n in range(pages)]

        def read_all(cause: str) -> tuple[int, int]:
            """How many pages have the old price, and how many were computed."""
            with run.recording(cause) as own:
                bodies = [
                    read_kept(bench, names, lambda: _price(bench, run)).body
                    for names in every
                ]
            old = msgspec.json.encode({"price_cents": OLD_CENTS})
            own.verdict = ("no", "old") if old in bodies else ("ok", "fresh")
            return sum(body == old for body in bodies), len(own.sql)

        read_all(f"Keep {pages} pages")
        with run.recording("Edit, and leave the pages to their TTL"):
            # Flaw: all these pages are wrong now, and nobody says so.
            scratch.set_scratch_price(bench.engine, run.id, NEW_CENTS)
        forgotten, _ = read_all(f"Read {pages} pages")
        with run.recording("Void them: delete the generation"):
            _CACHE.void(bench.client, every[0].generation)
        voided, computed = read_all(f"Read {pages} pages again")
    sides = "left to the TTL", "generation deleted"
    return Outcome(
        rows=compare(
            "Pages with the old price", sides, (forgotten, voided), most=pages
        ),
        summary=f"After an edit {forgotten} of {pages} kept pages have the old price. "
        f"One DEL voids all of them: {voided}, and {computed} are computed anew.",
        tone="no" if forgotten else "ok",
        verdict=f"{forgotten} old",
        recordings=run.recordings,
    )


EXPERIMENTS: tuple[Experiment, ...] = (
    Experiment(
        name="unsorted",
        title="Take the URL as it comes",
        hypothesis="The same question, written in another order, is another key and "
        "another query.",
        controls=(Control("clients", "Clients", "range", 4, 24, 4, 12),),
        run=run_unsorted,
    ),
    Experiment(
        name="personal",
        title="Keep a personal answer",
        hypothesis="What was made for the first visitor is given to everyone.",
        controls=(Control("visitors", "Visitors", "range", 2, 20, 2, 10),),
        run=run_personal,
    ),
    Experiment(
        name="left-to-the-ttl",
        title="Leave it to the TTL",
        hypothesis="An edit is on none of the kept pages, for up to five minutes.",
        controls=(Control("pages", "Pages", "range", 4, 20, 4, 8),),
        run=run_left_to_the_ttl,
    ),
)
