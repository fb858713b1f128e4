"""The curves of a simulation as SVG paths, each in a box of WIDTH by HEIGHT."""

from collections.abc import Sequence
from dataclasses import dataclass

from webapp.patterns.unique_visitors import STANDARD_ERROR
from webapp.shop.visits import Point

WIDTH, HEIGHT = 600, 120
_MOST_PERCENT = 2.5  # the top of the error's box; nearly no estimate is that far off


@dataclass(frozen=True)
class Chart:
    exact: str  # the `d` of a path, as the next ones
    estimate: str
    ones: str  # how often PFADD answered 1
    error: str  # percent, zero in the middle
    band_y: float  # the standard error's band
    band_height: float
    most_percent: float
    width: int = WIDTH
    height: int = HEIGHT


def of_counts(points: Sequence[Point], *, most: int) -> Chart:
    """`most` visitors fill the width, and as a count the height."""
    xs = [point.count.exact * WIDTH / most for point in points]

    def counted(values: Sequence[int]) -> str:
        return _path(xs, [HEIGHT - value * HEIGHT / most for value in values])

    middle, scale = HEIGHT / 2, HEIGHT / 2 / _MOST_PERCENT
    errors = [
        max(-_MOST_PERCENT, min(_MOST_PERCENT, p.count.error_percent)) for p in points
    ]
    return Chart(
        exact=counted([p.count.exact for p in points]),
        estimate=counted([p.count.estimate for p in points]),
        ones=counted([p.ones for p in points]),
        error=_path(xs, [middle - error * scale for error in errors]),
        band_y=round(middle - STANDARD_ERROR * scale, 1),
        band_height=round(2 * STANDARD_ERROR * scale, 1),
        most_percent=_MOST_PERCENT,
    )


def _path(xs: Sequence[float], ys: Sequence[float]) -> str:
    places = [f"{x:.1f} {y:.1f}" for x, y in zip(xs, ys, strict=True)]
    return "M" + "L".join(places) if places else ""
