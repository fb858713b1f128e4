"""What templates may call: numbers for people, and the shapes of small charts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from flask import Flask

from webapp.experiments import span
from webapp.http import tape

_UNKNOWN = "\u2013"
_SPACE = "\u00a0"  # keeps a number and its unit on one line
_GAP = 1  # between the parts of a bar
_QUIET = 4  # a chart is at least this tall in requests, so that one is not a tower


def thousands(number: int | None) -> str:
    """1284 -> '1,284'; nothing known -> a dash."""
    return _UNKNOWN if number is None else f"{number:,}"


def microseconds(us: int | None) -> tuple[str, str]:
    """Number and unit apart: 127 -> ('127', 'µs'), 128400 -> ('128.4', 'ms')."""
    if us is None:
        return _UNKNOWN, ""
    if us < 1_000:
        return str(us), "µs"
    return _milliseconds(us)


def duration(us: int | None) -> str:
    """127 -> '127 µs', 128400 -> '128.4 ms', 1930000 -> '1.93 s'."""
    return _SPACE.join(microseconds(us)).strip()


def total(us: int | None) -> str:
    """Like `duration`, but never in µs, so that sums compare: 310 -> '0.31 ms'."""
    return _UNKNOWN if us is None else _SPACE.join(_milliseconds(us))


def _milliseconds(us: int) -> tuple[str, str]:
    if us >= 1_000_000:
        return f"{us / 1e6:.3g}", "s"
    return f"{us / 1e3:.{2 if us < 10_000 else 1}f}", "ms"


def size(count: int | None, unit: str | None = None) -> str:
    """412 -> '412 B', 2969 -> '2.9 KB'; a `unit` fixes the scale and is left out."""
    if count is None:
        return _UNKNOWN
    scale = {"B": 1, "KB": 1024, "MB": 1024**2, "GB": 1024**3}
    name = unit or next((n for n in ("GB", "MB", "KB") if count >= scale[n]), "B")
    number = f"{count / scale[name]:.1f}".removesuffix(".0")
    return number if unit else f"{number}{_SPACE}{name}"


def price(cents: int) -> str:
    """4850 -> '€ 48.50'."""
    return f"€{_SPACE}{cents // 100:,}.{cents % 100:02}"


def reading(value: int, unit: str = "") -> str:
    """What a fader stands at: (4000, 'ms') -> '4 s', (50, '€') -> '€ 50'."""
    if unit == "ms":
        return span(value)
    parts = ("€", f"{value:,}") if unit == "€" else (f"{value:,}", unit)
    return _SPACE.join(filter(None, parts))


def percent(share: float | None) -> str:
    """0.942 -> '94.2 %'."""
    return _UNKNOWN if share is None else f"{share * 100:.1f}{_SPACE}%"


def clock(ms: int) -> str:
    """301000 -> '5:01', 3901000 -> '1:05:01'; a part of a second counts as one.

    From two days on they are counted: '7 d 23:59:59'.
    """
    minutes, seconds = divmod(-(-ms // 1000), 60)
    hours, minutes = divmod(minutes, 60)
    if hours >= 48:
        return f"{hours // 24}{_SPACE}d {hours % 24}:{minutes:02}:{seconds:02}"
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def until(left_ms: int) -> str:
    """When it ends, in UTC: '14:32:08 UTC', with the date if it is not today."""
    now = datetime.now(UTC)
    end = now + timedelta(milliseconds=left_ms)
    date = "" if end.date() == now.date() else f"{end:%Y-%m-%d} "
    return f"{date}{end:%H:%M:%S} UTC"


def plural(count: int, one: str) -> str:
    """(1, 'key') -> '1 key', (412, 'key') -> '412 keys'."""
    if count != 1:
        one = f"{one}es" if one.endswith("s") else f"{one}s"
    return f"{count:,} {one}"


def line(
    series: Sequence[float], width: int, height: int, *, top: float | None = None
) -> str:
    """The `d` of an SVG path through the series, which fills the box.

    With a `top` the box reaches from 0 to it.
    """
    if len(series) < 2:
        return ""
    low, high = (min(series), max(series)) if top is None else (0.0, top)
    step, span = (width - 4) / (len(series) - 1), (high - low) or 1
    ys = [2 + (height - 4) * (1 - (value - low) / span) for value in series]
    points = (f"{i * step:.1f} {y:.1f}" for i, y in enumerate(ys))
    return "M" + "L".join(points)


@dataclass(frozen=True, slots=True)
class Bar:
    x: float
    y: float
    width: float
    height: float
    tone: str


def bars(strip: Any, count: int, width: int, height: int) -> list[Bar]:
    """Stacked bars of hits, misses and bypasses, oldest first."""
    parts = {"ok": strip.hits, "wait": strip.misses, "no": strip.bypasses}
    return stacked(parts, count, width, height)


def stacked(
    parts: Mapping[str, Sequence[int]], count: int, width: int, height: int
) -> list[Bar]:
    """Bars of what happened in each span, a tone on the other, oldest first."""
    chunks = (_chunks(series, count) for series in parts.values())
    columns = [[sum(part) for part in column] for column in zip(*chunks, strict=True)]
    tallest = max([_QUIET, *map(sum, columns)])
    step = width / count
    drawn = []
    for i, column in enumerate(columns):
        y = float(height)
        for amount, tone in zip(column, parts, strict=True):
            if amount:
                tall = max(amount * height / tallest, 1 + _GAP)
                y -= tall
                drawn.append(
                    Bar(
                        round(i * step, 1),
                        max(round(y + _GAP, 1), 0.0),  # a sliver is drawn, too
                        round(step * 0.78, 1),
                        round(tall - _GAP, 1),
                        tone,
                    )
                )
    return drawn


def _chunks(series: Sequence[int], count: int) -> list[Sequence[int]]:
    width = max(1, len(series) // count)
    return [series[i * width : (i + 1) * width] for i in range(count)]


def init_app(app: Flask) -> None:
    app.jinja_env.trim_blocks = True
    app.jinja_env.lstrip_blocks = True
    app.jinja_env.filters.update(
        bytes=size,
        clock=clock,
        duration=duration,
        microseconds=microseconds,
        percent=percent,
        price=price,
        reading=reading,
        span=span,
        thousands=thousands,
        total=total,
        until=until,
    )
    app.jinja_env.globals.update(
        bars=bars, stacked=stacked, line=line, of_vitals=tape.of_vitals, plural=plural
    )
