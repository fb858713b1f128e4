"""Break counting visitors: PFADD's 1 taken for a visitor, and a Set that only grows."""

from webapp.connection.budget import limited_to
from webapp.experiments import (
    Bench,
    Control,
    Experiment,
    Outcome,
    Row,
    Run,
    compare,
    running,
)
from webapp.patterns.unique_visitors import UniqueVisitors
from webapp.shop.visits import Point, simulate

_SCRATCH_MS = 60_000
_COME_S = 8.0  # Redis' time to let all visitors come
_UNIQUE = UniqueVisitors()
_UNKNOWN = "not known here"


# Add up what PFADD says


def count_by_replies(point: Point) -> int:
    # Flaw: 1 says that a register moved. The more visitors there are, the more of them
    # move none, because a register keeps the largest value it has seen.
    return point.ones


def count_by_pfcount(point: Point) -> int:
    return point.count.estimate


def run_added_replies(bench: Bench, *, visitors: int) -> Outcome:
    with running(bench, "replies") as run:
        _, [*_, last] = _come(bench, run, visitors)
    exact = last.count.exact
    by_reply, by_count = count_by_replies(last), count_by_pfcount(last)
    off = abs(by_reply - exact), abs(by_count - exact)
    return Outcome(
        rows=[
            Row("Visitors, SCARD", f"{exact:,}", "ok", 1.0),
            Row("Sum of PFADD's ones", f"{by_reply:,}", "no", by_reply / exact),
            Row("PFCOUNT", f"{by_count:,}", "ok", min(by_count / exact, 1.0)),
        ],
        summary=f"The ones miss {off[0]:,} of {exact:,} visitors. "
        f"PFCOUNT is off by {off[1]:,}.",
        tone="no" if off[0] > off[1] else "ok",
        verdict="undercounted" if off[0] > off[1] else "near",
        recordings=run.recordings,
    )


# Keep every name


def run_growing_set(bench: Bench, *, visitors: int) -> Outcome:
    first, measured = visitors // 10, []
    with running(bench, "growth") as run:
        for size in (first, visitors):
            names, _ = _come(bench, run, size)
            with run.recording(f"Bytes of {size:,} visitors") as own:
                [found] = _UNIQUE.bytes(bench.client, pairs=[names[:2]])
            own.verdict = "wait", "measured"
            measured.append((found.exact, found.estimate))
    rows = [
        row
        for size, pair in zip((first, visitors), measured, strict=True)
        for row in _compared(f"{size:,} visitors", pair, most=measured[1][0] or 0)
    ]
    exact, estimate = measured[1]
    known = exact is not None and estimate is not None
    return Outcome(
        rows=rows,
        summary=f"The Set takes {exact // estimate:,} times the HyperLogLog's bytes."
        if exact and estimate
        else "This server cannot tell the bytes of a key.",
        tone="no" if known else "wait",
        verdict="grows" if known else "unknown",
        recordings=run.recordings,
    )


def _compared(
    what: str, sizes: tuple[int | None, int | None], *, most: int
) -> list[Row]:
    exact, estimate = sizes
    if exact is None or estimate is None:
        return [Row(what, _UNKNOWN, "wait")]
    sides = "Set", "HyperLogLog"
    return compare(what, sides, (exact, estimate), shown=_shown, most=most)


def _shown(size: int) -> str:
    return f"{size:,}\u00a0B"


def _come(
    bench: Bench, run: Run, visitors: int
) -> tuple[tuple[str, str, str], list[Point]]:
    """Let so many visitors come to fresh counters: their keys, and the curve."""
    hll, exact, curve = (run.key(f"{n}-{visitors}") for n in ("hll", "set", "curve"))
    names, points = (hll, exact, curve), list[Point]()
    with run.recording(f"{visitors:,} visitors come") as own, limited_to(_COME_S):
        own.see_inside = False  # thousands of calls are no reading
        while not points or points[-1].count.exact < visitors:
            points = simulate(
                bench.client, names, seed=run.id, size=visitors, ttl_ms=_SCRATCH_MS
            )
    own.verdict = "ok", "counted"
    return names, points


EXPERIMENTS: tuple[Experiment, ...] = (
    Experiment(
        name="added-replies",
        title="Add up what PFADD says",
        hypothesis="PFADD answers 1 for a moved register, not for a new visitor.",
        controls=(
            Control(
                "visitors",
                "Visitors",
                "range",
                min=5_000,
                max=50_000,
                step=5_000,
                value=20_000,
            ),
        ),
        run=run_added_replies,
    ),
    Experiment(
        name="growing-set",
        title="Keep every name",
        hypothesis="A Set grows with every visitor; a HyperLogLog stays at 12 KB.",
        controls=(
            Control(
                "visitors",
                "Visitors",
                "range",
                min=10_000,
                max=100_000,
                step=10_000,
                value=50_000,
            ),
        ),
        run=run_growing_set,
    ),
)
