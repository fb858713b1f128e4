"""The lanes of the rate limit lab: numbers and SVG shapes from a run's answers."""

from collections.abc import Sequence
from dataclasses import dataclass

from webapp.experiments.limits_lab import Answered, Run, most_within

WIDTH, HEIGHT, OFFERED_HEIGHT = 600, 80, 30
_BINS = 80
_TICKS = 4
_BASE, _LINE = 40, 21  # where the curve's zero and its limit are
_TOP, _BOTTOM = 45, 76  # between which the marks are stacked
_TALLEST, _RADIUS = 5.5, 2.4  # of a mark
# An answer is written down a little after it was decided; who asks again exactly when
# told would seem early by that.
_SLACK_MS = 25


@dataclass(frozen=True, slots=True)
class Mark:
    x: float
    y: float
    r: float


@dataclass(frozen=True)
class Lane:
    title: str
    how: str  # the commands, in a word or two
    admitted: int
    rejected: int
    most: int  # admitted within any one window
    limit: int
    curve: str  # path of what was admitted within the last window
    area: str
    over: str  # path of the part above the limit
    passed: list[Mark]
    refused: str  # path of the crosses
    ends: list[float]  # where the fixed window ended

    @property
    def is_over(self) -> bool:
        return self.most > self.limit


@dataclass(frozen=True)
class Picture:
    run: Run
    requests: int
    offered: list[Mark]  # bars: r is their height
    lanes: list[Lane]
    ticks: list[tuple[float, str]]  # x and "1.2 s"


def picture(run: Run, answers: Sequence[Answered]) -> Picture:
    last = answers[-1].at_ms if answers else 0
    scale = _Scale(run, max(run.duration_ms, last + 100))
    times = [a.at_ms for a in answers]
    fixed = [(a.at_ms, a.fixed) for a in answers]
    log = [(a.at_ms, a.log) for a in answers]
    return Picture(
        run=run,
        requests=len(answers),
        offered=scale.bars(times),
        lanes=[
            scale.lane("Fixed window", "INCRBY, PEXPIRE NX", fixed, ends=True),
            scale.lane("Sliding window log", "ZSET, Lua", log, ends=False),
        ],
        ticks=scale.ticks(),
    )


@dataclass(frozen=True)
class _Scale:
    run: Run
    span_ms: int

    def x(self, at_ms: float) -> float:
        return round(min(at_ms, self.span_ms) * WIDTH / self.span_ms, 1)

    def y(self, count: int) -> float:
        return round(max(_BASE - count * (_BASE - _LINE) / self.run.limit, 1), 1)

    def lane(
        self, title: str, how: str, said: Sequence[tuple[int, bool]], *, ends: bool
    ) -> Lane:
        passed = [at for at, allowed in said if allowed]
        steps = self._steps(passed)
        curve = self._path(steps)
        dots, crosses = self._marks(said)
        return Lane(
            title=title,
            how=how,
            admitted=len(passed),
            rejected=len(said) - len(passed),
            most=most_within(passed, self._seen_ms),
            limit=self.run.limit,
            curve=curve,
            area=f"{curve}V{_BASE}H0Z" if curve else "",
            over=self._over(steps),
            passed=dots,
            refused="".join(
                f"M{m.x - m.r:.1f} {m.y - m.r:.1f}l{2 * m.r:.1f} {2 * m.r:.1f}"
                f"m0 {-2 * m.r:.1f}l{-2 * m.r:.1f} {2 * m.r:.1f}"
                for m in crosses
            ),
            ends=self._ends([at for at, _ in said]) if ends else [],
        )

    def bars(self, times: Sequence[int]) -> list[Mark]:
        counts = [0] * _BINS
        for at in times:
            counts[self._bin(at)] += 1
        tallest = max(counts)
        return [
            Mark(
                x=round(n * WIDTH / _BINS + 0.6, 1),
                y=round(OFFERED_HEIGHT * (1 - count / tallest), 1),
                r=round(OFFERED_HEIGHT * count / tallest, 1),
            )
            for n, count in enumerate(counts)
            if count
        ]

    def ticks(self) -> list[tuple[float, str]]:
        times = [self.span_ms * n // _TICKS for n in range(_TICKS + 1)]
        return [(self.x(at), f"{at / 1000:.1f}\u00a0s") for at in times]

    @property
    def _seen_ms(self) -> int:
        return self.run.window_ms - _SLACK_MS

    def _bin(self, at_ms: int) -> int:
        return min(at_ms * _BINS // self.span_ms, _BINS - 1)

    def _steps(self, passed: Sequence[int]) -> list[tuple[float, int]]:
        """From where on how many had been admitted within the last window."""
        changes = sorted(
            [(at, 1) for at in passed] + [(at + self._seen_ms, -1) for at in passed]
        )
        steps, count = [(0.0, 0)], 0
        for at, change in changes:
            count += change
            if at < self.span_ms:
                steps.append((self.x(at), count))
        return steps

    def _path(self, steps: Sequence[tuple[float, int]]) -> str:
        if len(steps) == 1:
            return ""
        drawn = "".join(f"H{x}V{self.y(count)}" for x, count in steps)
        return f"M0 {_BASE}{drawn}H{WIDTH}"

    def _over(self, steps: Sequence[tuple[float, int]]) -> str:
        until = [x for x, _ in steps[1:]] + [float(WIDTH)]
        return "".join(
            f"M{x} {_LINE}V{self.y(count)}H{end}V{_LINE}Z"
            for (x, count), end in zip(steps, until, strict=True)
            if count > self.run.limit and end > x
        )

    def _marks(self, said: Sequence[tuple[int, bool]]) -> tuple[list[Mark], list[Mark]]:
        """Dots and crosses, stacked where they fall into the same bin."""
        stacks: list[list[bool]] = [[] for _ in range(_BINS)]
        for at, allowed in said:
            stacks[self._bin(at)].append(allowed)
        step = min(_TALLEST, (_BOTTOM - _TOP) / max([1, *map(len, stacks)]))
        radius = round(min(_RADIUS, step * 0.44), 2)
        dots: list[Mark] = []
        crosses: list[Mark] = []
        for n, stack in enumerate(stacks):
            x = round((n + 0.5) * WIDTH / _BINS, 1)
            for level, allowed in enumerate(stack):
                mark = Mark(x, round(_BOTTOM - level * step, 1), radius)
                (dots if allowed else crosses).append(mark)
        return dots, crosses

    def _ends(self, times: Sequence[int]) -> list[float]:
        """A window begins with the first request after the one before it ended."""
        ends: list[float] = []
        until = -1
        for at in times:
            if at > until:
                until = at + self.run.window_ms
                if until < self.span_ms:
                    ends.append(self.x(until))
        return ends
