"""The lanes of a lock: who held it in the last half minute, and what they wrote."""

from dataclasses import dataclass, field
from datetime import UTC, datetime

from webapp.shop.nightly import WORKERS, Act, Entry, Journal

WIDTH = 360
SPAN_MS = 30_000
SHOWN = 6  # entries below the lanes

_LABEL = 92  # what a number takes on a lane

# From an act to its tone and its words.
SAID: dict[Act, tuple[str, str]] = {
    "took": ("ok", "took the lock"),
    "busy": ("wait", "was told that it is taken"),
    "wrote": ("ok", "wrote the report"),
    "refused": ("no", "wrote late and was refused"),
    "extended": ("ok", "extended its lease"),
    "released": ("ok", "released the lock"),
    "late": ("no", "was told that its lease had ended"),
}


@dataclass(frozen=True)
class Block:
    """A lease, as far as it lies in the last half minute."""

    x: float
    width: float
    number: str  # empty where there is no room for it


@dataclass(frozen=True)
class Mark:
    x: float
    tone: str
    number: str


@dataclass
class Lane:
    worker: str
    tone: str
    state: str
    blocks: list[Block] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)


@dataclass(frozen=True)
class Said:
    at: datetime
    worker: str
    tone: str
    text: str
    number: str


@dataclass(frozen=True)
class Picture:
    lanes: list[Lane]
    said: list[Said]  # the newest first


def picture(journal: Journal) -> Picture:
    return Picture(
        lanes=[_lane(worker, journal) for worker in WORKERS],
        said=[said(entry) for entry in reversed(journal.entries[-SHOWN:])],
    )


def said(entry: Entry) -> Said:
    tone, text = SAID[entry.act]
    at = datetime.fromtimestamp(entry.at_ms / 1000, UTC)
    return Said(at, entry.worker, tone, text, short(entry.fence))


def short(fence: int) -> str:
    """The last nine digits, which differ and grow for a quarter of an hour."""
    return f"…{fence % 10**9:09}" if fence else ""


def _lane(worker: str, journal: Journal) -> Lane:
    entries = [entry for entry in journal.entries if entry.worker == worker]
    leases = [_until_next(lease, journal) for lease in _leases(entries)]
    lane = Lane(worker, *_state(leases, entries, journal.now_ms))
    lane.marks = _marks(entries, journal.now_ms)
    for began_ms, end_ms, fence in leases:
        left = _x(began_ms, journal.now_ms)
        width = _x(min(end_ms, journal.now_ms), journal.now_ms) - left
        if width > 0:
            crossed = any(0 < mark.x - left < _LABEL for mark in lane.marks)
            number = short(fence) if width > _LABEL and not crossed else ""
            lane.blocks.append(Block(left, round(width, 1), number))
    return lane


def _marks(entries: list[Entry], now_ms: int) -> list[Mark]:
    """What they wrote or asked for; a number where nothing else is in its way."""
    acts = [e for e in entries if e.act in ("wrote", "refused", "busy")]
    shown = [(x, e) for e in acts if (x := _x(e.at_ms, now_ms)) > 0]
    ends = [*(x for x, _ in shown[1:]), float(WIDTH)]
    return [
        Mark(x, SAID[e.act][0], short(e.fence) if end - x > _LABEL else "")
        for (x, e), end in zip(shown, ends, strict=False)
    ]


def _leases(entries: list[Entry]) -> list[tuple[int, int, int]]:
    """Begin, end and number of each lease; the end may lie ahead."""
    leases: list[tuple[int, int, int]] = []
    for entry in entries:
        if entry.act == "took":
            leases.append((entry.at_ms, entry.at_ms + entry.left_ms, entry.fence))
        elif leases and entry.act in ("extended", "released"):
            began_ms, _, fence = leases[-1]
            leases[-1] = began_ms, entry.at_ms + entry.left_ms, fence
    return leases


def _until_next(lease: tuple[int, int, int], journal: Journal) -> tuple[int, int, int]:
    """A lease ends with the next one at the latest: its key may have been deleted."""
    began_ms, end_ms, fence = lease
    later = (e.at_ms for e in journal.entries if e.act == "took" and e.fence > fence)
    return began_ms, min(end_ms, next(later, end_ms)), fence


def _state(
    leases: list[tuple[int, int, int]], entries: list[Entry], now_ms: int
) -> tuple[str, str]:
    if not leases:
        return "", "idle"
    _, end_ms, _ = leases[-1]
    if end_ms > now_ms:
        return "ok", f"holds it, {(end_ms - now_ms + 999) // 1000} s left"
    over = next(
        entry for entry in reversed(entries) if entry.act not in ("busy", "refused")
    )
    return ("", "idle") if over.act == "released" else ("wait", "lease ended")


def _x(at_ms: int, now_ms: int) -> float:
    return round(max(0.0, WIDTH * (1 - (now_ms - at_ms) / SPAN_MS)), 1)
