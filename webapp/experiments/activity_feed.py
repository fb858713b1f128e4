"""Break the activity feed: four ways to get a list wrong, each beside the right one."""

from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

import msgspec
import redis

from webapp.connection.recorder import Recording
from webapp.connection.urls import home
from webapp.experiments import (
    Bench,
    Control,
    Experiment,
    Lane,
    Outcome,
    Replay,
    Row,
    Run,
    compare,
    price,
    priced,
    running,
)
from webapp.experiments.priced import NEW_CENTS, OLD_CENTS
from webapp.patterns.activity_feed import ActivityFeed
from webapp.shop import scratch

_TTL_MS = 10_000
_THERE = 12  # entries when a reader begins
_PER_PAGE = 4
_CAP = 10  # of the list whose writer dies
_FEED = ActivityFeed(ttl_ms=_TTL_MS)
_SHORT = ActivityFeed(longest=_CAP, ttl_ms=_TTL_MS)

Read = Callable[[list[str]], list[str]]  # from what was seen to the next page


class Died(Exception):
    """The writer is gone; nothing after this line of it runs."""


# Page by offset


def page_by_offset(client: redis.Redis, key: str, seen: list[str]) -> list[str]:
    # Race: a reader saw places 0 to 3 (1), somebody pushes three entries (2), and
    # places 4 to 7 (3) begin with three that the reader has seen already.
    found: Any = client.lrange(key, len(seen), len(seen) + _PER_PAGE - 1)
    return [entry.decode() for entry in found]


def page_by_entry(client: redis.Redis, key: str, seen: list[str]) -> list[str]:
    after = seen[-1] if seen else None
    return list(_FEED.page(client, key, after=after, count=_PER_PAGE).entries)


def run_by_offset(bench: Bench, *, pushed: int) -> Outcome:
    with running(bench, "offset") as run:
        by_offset, broken = _read_all(bench, run, "By offset", page_by_offset, pushed)
        by_entry, fixed = _read_all(bench, run, "By entry", page_by_entry, pushed)
    sides, twice = ("by offset", "by entry"), (_twice(broken), _twice(fixed))
    never = _never(broken), _never(fixed)
    return Outcome(
        rows=[
            *compare("Shown twice", sides, twice, most=_THERE),
            *compare("Never shown", sides, never, most=_THERE),
        ],
        summary=f"Of {_THERE} entries the reader saw {twice[0]} twice and {never[0]} "
        f"never. By entry: {twice[1]} and {never[1]}.",
        tone="no" if twice[0] or never[0] else "ok",
        verdict="repeated" if twice[0] else "each once",
        recordings=run.recordings,
        lanes=[by_offset, by_entry],
    )


def _read_all(
    bench: Bench,
    run: Run,
    title: str,
    read: Callable[[redis.Redis, str, list[str]], list[str]],
    pushed: int,
) -> tuple[Lane, list[str]]:
    """The lane, and what the reader saw in as many pages as there were at first."""
    client, replay = bench.client, Replay(run)
    key = run.key(title.lower().replace(" ", "-"))
    seen: list[str] = []
    with run.recording("Set up"):
        _fill(client, key, [f"old-{n}" for n in range(_THERE)])

    def turn() -> list[str]:
        page = read(client, key, seen)
        seen.extend(page)
        return page

    def push(page: int) -> int:
        return int(client.lpush(key, *(f"new-{page}-{n}" for n in range(pushed))))

    for page in range(_THERE // _PER_PAGE):
        if page:
            replay.step(
                "Visitor",
                f"does {pushed} things more",
                lambda page=page: push(page),  # type: ignore[misc]
                shown=_kept,
            )
        replay.step(
            "Reader",
            f"asks for page {page + 1}",
            turn,
            shown=", ".join,
            tone=lambda page: "no" if _twice(seen) else "ok",
        )
    return replay.lane(title), seen


def _twice(seen: list[str]) -> int:
    return len(seen) - len(set(seen))


def _never(seen: list[str]) -> int:
    return _THERE - sum(entry.startswith("old-") for entry in set(seen))


# Die between LPUSH and LTRIM


def push_then_trim(client: redis.Redis, key: str, entry: str, *, dies: bool) -> None:
    # Flaw: whoever ends between these two lines leaves one entry more than the cap.
    client.lpush(key, entry)
    if dies:
        raise Died
    client.ltrim(key, 0, _CAP - 1)


def push_in_multi_and_die(client: redis.Redis, key: str, entry: str) -> None:
    """The connection ends before EXEC, so the server forgets what was queued."""
    pool = home(client, key).connection_pool
    connection = pool.get_connection()
    try:
        queued = ("MULTI",), ("LREM", key, 0, entry), ("LPUSH", key, entry)
        connection.send_packed_command(connection.pack_commands(queued))
        for _ in queued:
            connection.read_response()
    finally:
        connection.disconnect()
        pool.release(connection)
    raise Died


def run_crash(bench: Bench, *, deaths: int) -> Outcome:
    client = bench.client
    with running(bench, "crash") as run:
        with run.recording("Die before LTRIM") as apart:
            grown = _die(
                client,
                run.key("apart"),
                deaths,
                lambda key, entry: push_then_trim(client, key, entry, dies=True),
            )
        with run.recording("Die before EXEC") as at_once:
            kept = _die(
                client,
                run.key("at-once"),
                deaths,
                lambda key, entry: push_in_multi_and_die(client, key, entry),
            )
    _say(apart, f"{grown} of {_CAP}", broken=grown > _CAP)
    _say(at_once, f"{kept} of {_CAP}", broken=kept > _CAP)
    return Outcome(
        rows=compare(
            f"Kept, cap of {_CAP}", ("LPUSH then LTRIM", "MULTI"), (grown, kept)
        ),
        summary=f"{deaths} writers die half-way. LPUSH and LTRIM leave {grown} "
        f"entries, a MULTI {kept}.",
        tone="no" if grown > _CAP else "ok",
        verdict="over the cap" if grown > _CAP else "capped",
        recordings=run.recordings,
    )


def _die(
    client: redis.Redis, key: str, deaths: int, push: Callable[[str, str], None]
) -> int:
    """Let so many writers of a full list die; how many entries it has then."""
    _fill(client, key, [f"old-{n}" for n in range(_CAP)])
    for n in range(deaths):
        with suppress(Died):
            push(key, f"new-{n}")
    return int(client.llen(key))


def _say(own: Recording, text: str, *, broken: bool) -> None:
    own.verdict = ("no" if broken else "ok"), text


# Keep what it was about


class Body(msgspec.Struct, frozen=True):
    """A product as it was when somebody looked at it."""

    kind: str
    product: str
    price_cents: int


def push_body(client: redis.Redis, key: str, body: Body) -> int:
    # Flaw: the price is copied into every list that mentions the product, and an
    # edit does not know of any of them.
    return _push(client, key, msgspec.json.encode(body).decode())


def run_bodies(bench: Bench) -> Outcome:
    with running(bench, "bodies") as run:
        with priced.row(bench, run):
            bodies, old, body_bytes = _show_body(bench, run)
        with priced.row(bench, run):
            ids, new, id_bytes = _show_id(bench, run)
    return Outcome(
        rows=[
            Row("Price in the database", price(NEW_CENTS), "ok"),
            Row("Shown, bodies on the list", price(old), bodies.tone),
            Row("Shown, ids on the list", price(new), ids.tone),
            *compare("Bytes an entry", ("body", "id"), (body_bytes, id_bytes)),
        ],
        summary=f"After the edit to {price(NEW_CENTS)} the body shows {price(old)}, "
        f"the id {price(new)}.",
        tone=bodies.tone,
        verdict="old price" if old != NEW_CENTS else "new price",
        recordings=run.recordings,
        lanes=[bodies, ids],
    )


def _show_body(bench: Bench, run: Run) -> tuple[Lane, int, int]:
    """The lane, the price it ended with, and the bytes of the entry."""
    client, key, replay = bench.client, run.key("bodies"), Replay(run)
    body = Body("view", run.id, OLD_CENTS)
    replay.step(
        "Visitor", "looks at it", lambda: push_body(client, key, body), shown=_kept
    )
    _edit(bench, run, replay)

    def show() -> Body:
        entry: Any = client.lindex(key, 0)
        return msgspec.json.decode(entry, type=Body)

    shown = _shown(replay, lambda: show().price_cents)
    return replay.lane("Bodies"), shown, len(msgspec.json.encode(body))


def _show_id(bench: Bench, run: Run) -> tuple[Lane, int, int]:
    client, key, replay = bench.client, run.key("ids"), Replay(run)
    entry = f"view:{run.id}"
    replay.step(
        "Visitor",
        "looks at it",
        lambda: _FEED.add(client, key, entry=entry),
        shown=_kept,
    )
    _edit(bench, run, replay)

    def show() -> int:
        [found] = _FEED.page(client, key, count=1).entries
        row = found.removeprefix("view:")
        return scratch.scratch_price(bench.engine, row) or 0

    return replay.lane("Ids"), _shown(replay, show), len(entry)


def _edit(bench: Bench, run: Run, replay: Replay) -> None:
    replay.step(
        "Editor",
        f"sets the price to {price(NEW_CENTS)}",
        lambda: scratch.set_scratch_price(bench.engine, run.id, NEW_CENTS),
    )


def _shown(replay: Replay, show: Callable[[], int]) -> int:
    return replay.step(
        "Visitor",
        "looks at the list",
        show,
        shown=price,
        tone=lambda cents: "ok" if cents == NEW_CENTS else "no",
    )


# Repeat after a lost reply


def push_again(client: redis.Redis, key: str, entry: str) -> int:
    # Flaw: the first try was carried out, only its reply was lost. The list takes the
    # second as another entry.
    return _push(client, key, entry)


def add_again(client: redis.Redis, key: str, entry: str) -> int:
    return _FEED.add(client, key, entry=entry)


def run_lost_reply(bench: Bench) -> Outcome:
    with running(bench, "reply") as run:
        pushing, doubled = _repeat(bench, run, "LPUSH again", push_again)
        adding, once = _repeat(bench, run, "LREM first", add_again)
    return Outcome(
        rows=compare("Entries of one act", ("LPUSH", "LREM first"), (doubled, once)),
        summary=f"One act, sent twice: {doubled} entries. With LREM first: {once}.",
        tone=pushing.tone,
        verdict="doubled" if doubled > 1 else "once",
        recordings=run.recordings,
        lanes=[pushing, adding],
    )


def _repeat(
    bench: Bench,
    run: Run,
    title: str,
    push: Callable[[redis.Redis, str, str], int],
) -> tuple[Lane, int]:
    """The lane, and how many entries the one act has left."""
    client, replay, entry = bench.client, Replay(run), "view:1042:1"
    key = run.key(title.lower().replace(" ", "-"))
    replay.step(
        "App",
        "notes an act, and throws the reply away, as if it were lost",
        lambda: push(client, key, entry),
        shown=lambda _: "no reply",
        tone=lambda _: "wait",
    )
    replay.step(
        "App",
        "notes it again, because it cannot know",
        lambda: push(client, key, entry),
        shown=_kept,
    )
    left = replay.step(
        "Visitor",
        "looks at the list",
        lambda: _FEED.page(client, key, count=10).entries,
        shown=", ".join,
        tone=lambda left: "no" if len(left) > 1 else "ok",
    )
    return replay.lane(title), len(left)


# What they share


def _kept(length: int) -> str:
    return f"{length} kept"


def _push(client: redis.Redis, key: str, entry: str) -> int:
    """Capped and with a TTL, but not safe to repeat."""
    with client.pipeline(transaction=True) as multi:
        multi.lpush(key, entry)
        multi.ltrim(key, 0, _FEED.longest - 1)
        multi.pexpire(key, _TTL_MS)
        return int(multi.execute()[0])


def _fill(client: redis.Redis, key: str, entries: Iterable[str]) -> None:
    with client.pipeline(transaction=True) as multi:
        multi.rpush(key, *entries)
        multi.pexpire(key, _TTL_MS)
        multi.execute()


EXPERIMENTS: tuple[Experiment, ...] = (
    Experiment(
        name="crash",
        title="Die between LPUSH and LTRIM",
        hypothesis="Each writer that dies there leaves the list one longer.",
        controls=(
            Control("deaths", "Deaths", "range", min=5, max=20, step=5, value=10),
        ),
        run=run_crash,
    ),
    Experiment(
        name="by-offset",
        title="Page by offset",
        hypothesis="Entries that arrive meanwhile push old ones onto the next page.",
        controls=(
            Control(
                "pushed", "New between pages", "range", min=1, max=4, step=1, value=2
            ),
        ),
        run=run_by_offset,
        replayed=True,
    ),
    Experiment(
        name="bodies",
        title="Keep the product on the list",
        hypothesis="A list that holds the product shows it as it was.",
        controls=(),
        run=run_bodies,
        replayed=True,
    ),
    Experiment(
        name="lost-reply",
        title="Repeat after a lost reply",
        hypothesis="A push that is sent again leaves its entry twice.",
        controls=(),
        run=run_lost_reply,
        replayed=True,
    ),
)
