"""Break tag invalidation: two ways to lose keys, each beside the right one."""

from collections.abc import Callable, Sequence

import redis

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
from webapp.experiments.priced import NEW_CENTS
from webapp.patterns.cache_aside import CacheAside
from webapp.patterns.tag_invalidation import Tag, TagInvalidation
from webapp.shop import scratch

_TTL_MS = 10_000
_CACHE = CacheAside(ttl_ms=_TTL_MS)
_TAGGED = TagInvalidation(_CACHE)


# Read a product while its tag is emptied


def delete_members_and_tag(
    client: redis.Redis, tag: Tag, members: Sequence[str]
) -> None:
    # Race: this invalidation has read the members (1), a reader registers another one
    # and stores it (2), and then this line deletes the tag (3). The new copy belongs to
    # no tag: no invalidation finds it again.
    client.delete(*(tag.entry(member).value for member in members), tag.key)


def delete_those_members(
    client: redis.Redis, tag: Tag, members: Sequence[str]
) -> object:
    # Only what was read (1) is removed from the tag: the new member (2) stays in it.
    return _TAGGED.sweep(client, client, tag, members)


def run_lost_members(bench: Bench) -> Outcome:
    with running(bench, "members") as run:
        with priced.row(bench, run):
            emptied, broken = _race(
                bench, run, "The tag is deleted", delete_members_and_tag
            )
        with priced.row(bench, run):
            swept, fixed = _race(
                bench, run, "Its members are removed", delete_those_members
            )
    return Outcome(
        rows=[
            Row("Price in the database", price(NEW_CENTS), "ok"),
            Row("Served, tag deleted", priced.shown(broken), emptied.tone),
            Row("Served, members removed", priced.shown(fixed), swept.tone),
        ],
        summary=f"The second invalidation misses a copy: readers get "
        f"{priced.shown(broken)}. With removal of what was read: "
        f"{priced.shown(fixed)}.",
        tone="no" if broken != NEW_CENTS else "ok",
        verdict="lost to the tag" if broken != NEW_CENTS else "found",
        recordings=run.recordings,
        lanes=[emptied, swept],
    )


def _race(
    bench: Bench,
    run: Run,
    title: str,
    clear: Callable[[redis.Redis, Tag, Sequence[str]], object],
) -> tuple[Lane, int | None]:
    """The lane, and the price that a reader of the second product gets."""
    client, replay, tag = bench.client, Replay(run), _tag(run, ("kettle", "mug"))

    def members() -> list[str]:
        return [m for page in _TAGGED.batches(client, tag) for m in page]

    def invalidate() -> list[str]:
        found = members()
        if found:
            clear(client, tag, found)
        return found

    def read(member: str) -> int | None:
        return _read(bench, run, tag, member)

    def shown(found: Sequence[str]) -> str:
        return ", ".join(found) or "no members"

    replay.step(
        "Reader", "opens the kettle", lambda: read("kettle"), shown=priced.shown
    )
    found = replay.step("Invalidation", "reads the members", members, shown=shown)
    replay.step("Reader", "opens the mug", lambda: read("mug"), shown=priced.shown)
    replay.step(
        "Invalidation", "deletes what it read", lambda: clear(client, tag, found)
    )
    replay.step(
        "Writer",
        "commits a new price",
        lambda: scratch.set_scratch_price(bench.engine, run.id, NEW_CENTS),
    )
    replay.step(
        "Invalidation",
        "runs again",
        invalidate,
        shown=shown,
        tone=lambda found: "ok" if "mug" in found else "no",
    )
    served = replay.step(
        "Anyone",
        "opens the mug",
        lambda: read("mug"),
        shown=priced.shown,
        tone=lambda cents: "ok" if cents == NEW_CENTS else "no",
    )
    return replay.lane(title), served


def _read(bench: Bench, run: Run, tag: Tag, member: str) -> int | None:
    read = _TAGGED.read(
        bench.client,
        bench.client,
        member,
        tag_of=lambda: tag,
        entry=tag.entry(member),
        load=lambda: scratch.scratch_price(bench.engine, run.id),
        encode=priced.encode,
        decode=priced.decode,
    )
    return priced.answered(read)


# Let the tag expire first


def register_with_first_ttl(
    client: redis.Redis, tag: Tag, member: str, *, ttl_ms: int
) -> None:
    client.sadd(tag.key, member)
    # Flaw: the tag ends with its first member; those that came later outlive it.
    client.pexpire(tag.key, ttl_ms, nx=True)


def run_early_end(bench: Bench, *, copies: int) -> Outcome:
    ttl_ms = 400
    cache = TagInvalidation(CacheAside(ttl_ms=ttl_ms, jitter=0.0))

    def first_ttl(tag: Tag, member: str) -> None:
        register_with_first_ttl(bench.client, tag, member, ttl_ms=ttl_ms)

    def each_ttl(tag: Tag, member: str) -> None:
        cache.register(bench.client, tag, member)

    with running(bench, "ends") as run:
        with run.recording("The first member's TTL") as early:
            broken = _left_over(bench, run, first_ttl, copies, cache)
        with run.recording("Longer with each member") as late:
            fixed = _left_over(bench, run, each_ttl, copies, cache)
    early.verdict = ("no", "forgotten") if broken else ("ok", "all found")
    late.verdict = ("no", "forgotten") if fixed else ("ok", "all found")
    sides = "first TTL", "extended"
    return Outcome(
        rows=compare("Copies left", sides, (broken, fixed), most=copies),
        summary=f"The tag was gone: {broken} of {copies} copies stay after an "
        f"invalidation. With a tag that lives on: {fixed}.",
        tone="no" if broken else "ok",
        verdict="forgotten" if broken else "all found",
        recordings=run.recordings,
    )


def _left_over(
    bench: Bench,
    run: Run,
    register: Callable[[Tag, str], None],
    copies: int,
    cache: TagInvalidation,
) -> int:
    """One old copy, more that came later, then an invalidation: how many it left."""
    client, ttl_ms = bench.client, cache.cache.ttl_ms
    later = [f"later-{n}" for n in range(copies)]
    tag = _tag(run, ("first", *later))
    first = tag.entry("first").value

    def store(member: str) -> None:
        register(tag, member)
        client.set(tag.entry(member).value, b"x", px=ttl_ms)

    store("first")
    priced.until(lambda: client.pttl(first) <= ttl_ms / 2, within_s=ttl_ms / 1000)
    for member in later:
        store(member)
    priced.until(lambda: not client.exists(first), within_s=ttl_ms / 1000)
    cache.invalidate(client, client, tag)
    return int(client.exists(*(tag.entry(member).value for member in later)))


def _tag(run: Run, members: Sequence[str]) -> Tag:
    entries = {member: priced.entry(run) for member in members}
    return Tag(run.key(f"tag-{len(run.keys)}"), entries.__getitem__)


EXPERIMENTS: tuple[Experiment, ...] = (
    Experiment(
        name="early-end",
        title="Let the tag expire first",
        hypothesis="A tag that ends before its members leaves copies behind.",
        controls=(
            Control("copies", "Copies", "range", min=2, max=10, step=2, value=6),
        ),
        run=run_early_end,
    ),
    Experiment(
        name="lost-members",
        title="Read while the tag is emptied",
        hypothesis="A copy stored during an invalidation is lost to its tag.",
        controls=(),
        run=run_lost_members,
        replayed=True,
    ),
)
