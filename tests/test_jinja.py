"""Numbers for people, and the shapes of small charts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webapp.http import jinja
from webapp.live.vitals import Strip

SERIES = st.lists(st.integers(0, 10_000), min_size=60, max_size=60)


def strip(*hits: int, misses: tuple[int, ...] = ()) -> Strip:
    """The last seconds of a minute; before them there was nothing."""

    def minute(last: tuple[int, ...]) -> list[int]:
        return [0] * (60 - len(last)) + list(last)

    return Strip(hits=minute(hits), misses=minute(misses))


@pytest.mark.parametrize(
    ("us", "parts"),
    [
        (0, ("0", "µs")),
        (999, ("999", "µs")),
        (1_000, ("1.00", "ms")),
        (9_876, ("9.88", "ms")),
        (128_400, ("128.4", "ms")),
        (1_930_000, ("1.93", "s")),
        (None, ("\u2013", "")),
    ],
)
def test_a_short_time_has_the_unit_that_suits_it(
    us: int | None, parts: tuple[str, str]
) -> None:
    assert jinja.microseconds(us) == parts


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (400, "ms", "400\u00a0ms"),
        (4_000, "ms", "4\u00a0s"),
        (9_892, "ms", "9.89\u00a0s"),
        (50, "€", "€\u00a050"),
        (30, "/min", "30\u00a0/min"),
        (2_000, "", "2,000"),
    ],
)
def test_a_fader_reads_as_prose_would_tell_it(value: int, unit: str, text: str) -> None:
    assert jinja.reading(value, unit) == text


def test_a_total_is_never_in_microseconds() -> None:
    assert jinja.total(310) == "0.31\u00a0ms"


@pytest.mark.parametrize(
    ("count", "unit", "text"),
    [
        (0, None, "0\u00a0B"),
        (412, None, "412\u00a0B"),
        (1024, None, "1\u00a0KB"),
        (2969, None, "2.9\u00a0KB"),
        (64 * 1024**2, None, "64\u00a0MB"),
        (1024**2 * 3 // 2, "MB", "1.5"),
        (None, None, "\u2013"),
    ],
)
def test_bytes_are_scaled_and_a_given_unit_is_left_out(
    count: int | None, unit: str | None, text: str
) -> None:
    assert jinja.size(count, unit) == text


@pytest.mark.parametrize(
    ("cents", "text"), [(1, "0.01"), (4850, "48.50"), (10_000_000, "100,000.00")]
)
def test_a_price_has_two_digits_for_cents(cents: int, text: str) -> None:
    assert jinja.price(cents) == f"€\u00a0{text}"


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (0, "0:00"),
        (1, "0:01"),
        (301_000, "5:01"),
        (3_600_000, "1:00:00"),
        (172_800_000, "2\u00a0d 0:00:00"),
    ],
)
def test_a_clock_counts_a_part_of_a_second_as_one(ms: int, text: str) -> None:
    assert jinja.clock(ms) == text


@pytest.mark.parametrize(
    ("count", "one", "text"),
    [(1, "key", "1 key"), (0, "key", "0 keys"), (1_412, "miss", "1,412 misses")],
)
def test_only_one_is_singular(count: int, one: str, text: str) -> None:
    assert jinja.plural(count, one) == text


def test_a_share_is_a_percentage_with_one_digit() -> None:
    assert jinja.percent(0.942) == "94.2\u00a0%"


def test_a_line_runs_through_all_its_points() -> None:
    assert jinja.line([0, 10, 5], 54, 14) == "M0.0 12.0L25.0 2.0L50.0 7.0"


@pytest.mark.parametrize("series", [[], [7]])
def test_a_line_needs_two_points(series: list[float]) -> None:
    assert jinja.line(series, 54, 14) == ""


@given(SERIES)
def test_a_line_stays_in_its_box(series: list[int]) -> None:
    for point in jinja.line(series, 56, 18).removeprefix("M").split("L"):
        x, y = map(float, point.split())
        assert 0 <= x <= 56
        assert 0 <= y <= 18


def test_misses_stand_on_hits() -> None:
    hit, miss = jinja.bars(strip(3, misses=(1,)), 60, 600, 40)
    assert (hit.tone, miss.tone) == ("ok", "wait")
    assert hit.y + hit.height == 40
    assert miss.y + miss.height <= hit.y


def test_the_newest_second_is_at_the_right_end() -> None:
    (bar,) = jinja.bars(strip(4), 60, 600, 40)
    assert bar.x == 590


def test_a_lonely_read_is_no_tower() -> None:
    (bar,) = jinja.bars(strip(1), 60, 600, 40)
    assert bar.height <= 10


def test_seconds_that_share_a_bar_are_added() -> None:
    (bar,) = jinja.bars(strip(4, 4), 30, 600, 40)
    assert bar.height == 39


@given(SERIES, SERIES, SERIES)
def test_bars_stay_in_their_box(
    hits: list[int], misses: list[int], by: list[int]
) -> None:
    drawn = jinja.bars(Strip(hits=hits, misses=misses, bypasses=by), 60, 384, 40)
    for bar in drawn:
        assert 0 <= bar.x <= 384 - bar.width
        assert bar.height > 0
        assert 0 <= bar.y <= 40 - bar.height + 0.1
