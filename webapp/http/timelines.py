"""The timelines of a stampede: a thin bar for each reader, as SVG paths."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from webapp.experiments.stampede_lab import LEFT_MS, Ran

WIDTH, HEIGHT = 600, 96
_TICKS = 4
_ROUND_US = 25_000  # what the time between two ticks is a multiple of
_GAP = 0.2  # of a reader's height, between two bars
_ANSWER = 3.0  # the width of the mark where a reader is answered
_LEAST = 1.5  # of a bar, to be seen


@dataclass(frozen=True)
class Lane:
    ran: Ran
    waits: str  # the `d` of a path, as the next ones
    loads: str
    fresh: str  # where readers were answered
    old: str  # the same, with a value past its soft TTL
    ends: float | None  # where the value ends that the readers began with

    @property
    def p50_us(self) -> int:
        return self.ran.waited_us(0.5)

    @property
    def p99_us(self) -> int:
        return self.ran.waited_us(0.99)


@dataclass(frozen=True)
class Picture:
    lanes: list[Lane]
    readers: int
    ticks: list[tuple[float, str]]  # x and "150 ms"


def picture(runs: Sequence[Ran]) -> Picture:
    """All of them on one axis, from the first reader to the end of the last load."""
    tick_us = -(-max(run.ended_us for run in runs) // (_TICKS * _ROUND_US)) * _ROUND_US
    span_us = tick_us * _TICKS
    times = range(0, span_us + 1, tick_us)
    return Picture(
        lanes=[_lane(run, span_us) for run in runs],
        readers=len(runs[0].readers),
        ticks=[(_x(at, span_us), f"{at // 1000:,}\u00a0ms") for at in times],
    )


def _lane(run: Ran, span_us: int) -> Lane:
    step = HEIGHT / len(run.readers)
    tall = step * (1 - _GAP)

    def bar(n: int, began_us: int, ended_us: int, least: float = 0.0) -> str:
        left = _x(began_us, span_us)
        width = max(_x(ended_us, span_us) - left, least)
        if not width:
            return ""
        return f"M{left} {n * step:.2f}h{width:.1f}v{tall:.2f}h-{width:.1f}z"

    def answers(which: Iterable[bool]) -> str:
        return "".join(
            f"M{min(_x(reader.answered_us, span_us), WIDTH - _ANSWER)} {n * step:.2f}"
            f"h{_ANSWER}v{tall:.2f}h-{_ANSWER}z"
            for n, (reader, shown) in enumerate(zip(run.readers, which, strict=True))
            if shown
        )

    readers = list(enumerate(run.readers))
    is_old = [reader.outcome == "stale" for reader in run.readers]
    return Lane(
        run,
        waits="".join(bar(n, r.came_us, r.answered_us) for n, r in readers),
        loads="".join(bar(n, *load, _LEAST) for n, r in readers for load in r.loads),
        fresh=answers(not old for old in is_old),
        old=answers(is_old),
        ends=_x(LEFT_MS * 1000, span_us) if run.name == "early" else None,
    )


def _x(at_us: int, span_us: int) -> float:
    return round(at_us * WIDTH / span_us, 1)
