"""The picture of the order pipeline: entries, lanes and pending orders, as shapes."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from webapp.patterns.streams.dead_letters import Letter
from webapp.shop.orders import ANALYTICS, BILLING, LETTERS
from webapp.shop.pipeline import Done, Entry, GroupNow, Held, Survey, ms_of
from webapp.workers.fleet import Fleet, Wanted

WIDTH, SPAN_MS = 512, 60_000  # of a lane
CELLS = 64  # entries on the strip
STRIP, CELL = 768, 12  # its width, and that of one entry
ROWS = 10  # of the table

_EDGE = 110  # what the newest entry's number takes below the strip
_DIGIT = 7.3  # what one takes of a label
_MOST_UNREAD = 40  # entries on the strip, where others have been delivered
_CHIP, _CHIP_STEP = 38, 41  # a pending order of a dead worker
_LEAST = 2.0
_SILENT_MS = 7_000  # longer than a job may take


@dataclass(frozen=True)
class Cell:
    x: float
    state: str  # done, pending, waiting, dead


@dataclass(frozen=True)
class Mark:
    x: float
    label: str


@dataclass(frozen=True)
class Block:
    x: float
    width: float
    label: str  # empty where there is no room for it
    again: bool  # it was somebody else's before, or failed


@dataclass
class Lane:
    name: str
    tone: str
    state: str
    pending: int
    action: str  # kill, restart, or empty: not ours
    blocks: list[Block] = field(default_factory=list)  # acknowledged
    open: Block | None = None  # in work
    down: float | None = None  # where it was killed
    chips: list[Mark] = field(default_factory=list)  # pending of a dead worker
    claims: list[float] = field(default_factory=list)  # where it took over
    lost: list[float] = field(default_factory=list)  # where others took over from it


@dataclass(frozen=True)
class Row:
    """A pending order."""

    id: str  # the last digits
    number: str
    consumer: str
    idle_ms: int
    deliveries: int
    note: str


@dataclass(frozen=True)
class Picture:
    length: int
    lag: int | None
    pending: int
    oldest_idle_ms: int | None
    dead: int
    cells: list[Cell]
    first: str
    last: str
    read: list[tuple[Mark, bool]]  # how far each group is; whether it is billing
    groups: list[GroupNow]
    lanes: list[Lane]
    dead_chips: list[Mark]
    letters: list[Letter]
    rows: list[Row]
    note: str
    reclaim_ms: int
    most_deliveries: int = LETTERS.most_deliveries

    @property
    def is_read(self) -> bool:
        """Whether there is no room for words behind what was delivered last."""
        return any(own and mark.x > STRIP - _EDGE for mark, own in self.read)

    def count(self, state: str) -> int:
        return sum(cell.state == state for cell in self.cells)


def picture(survey: Survey, fleet: Fleet, *, reclaim_ms: int) -> Picture:
    artist = _Artist(survey, fleet.wanted(), reclaim_ms)
    billing = survey.groups.get(BILLING)
    pending = billing.pending if billing else 0
    return Picture(
        length=survey.length,
        lag=billing.lag if billing else survey.length,
        pending=pending,
        oldest_idle_ms=max((held.idle_ms for held in survey.held), default=None),
        dead=survey.letters_count,
        cells=artist.cells(),
        first=artist.ends()[0],
        last=artist.ends()[1],
        read=artist.read(),
        groups=[g for name in (BILLING, ANALYTICS) if (g := survey.groups.get(name))],
        lanes=artist.lanes(),
        dead_chips=artist.dead_chips(),
        letters=survey.letters,
        rows=artist.rows(),
        note=artist.note(),
        reclaim_ms=reclaim_ms,
    )


def tail(id: str) -> str:
    """1795385319442-0 -> …19442-0."""
    return f"…{id.partition('-')[0][-5:]}-{id.partition('-')[2]}"


class _Artist:
    def __init__(
        self, survey: Survey, wanted: Sequence[Wanted], reclaim_ms: int
    ) -> None:
        self._survey = survey
        self._wanted = [one for one in wanted if one.group == BILLING]
        self._reclaim_ms = reclaim_ms
        self._numbers = {entry.id: entry.number for entry in survey.entries}
        self._claimed = {(c.id, c.by): c for c in reversed(survey.claims)}
        self._shown = self._window()
        self._down = {one.name for one in self._wanted if one.down_ms is not None}

    def label(self, id: str) -> str:
        return str(self._numbers.get(id) or tail(id))

    # The strip

    def cells(self) -> list[Cell]:
        return [
            Cell(i * CELL + 1.5, self._state(entry.id))
            for i, entry in enumerate(self._shown)
        ]

    def ends(self) -> tuple[str, str]:
        """The strip's first and last entry in words."""
        if not self._shown:
            return "", ""
        more = self._survey.entries.index(self._shown[-1])
        last = self.label(self._shown[-1].id)
        tail = f"{last}, {more} more" if more else f"{last}, newest"
        return self.label(self._shown[0].id), tail

    def _window(self) -> list[Entry]:
        """The newest entries; of a long backlog its beginning, where work is done."""
        entries, group = self._survey.entries, self._survey.groups.get(BILLING)
        last = _key(group.last) if group else (0, 0)
        unread = sum(_key(entry.id) > last for entry in entries)
        at = max(0, unread - _MOST_UNREAD) if unread < len(entries) else 0
        return entries[at : at + CELLS][::-1]

    def read(self) -> list[tuple[Mark, bool]]:
        """Where on the strip each group has got to."""
        shown = [entry.id for entry in self._shown]
        return [
            (Mark(sum(_key(id) <= _key(group.last) for id in shown) * CELL, label), own)
            for group in self._survey.groups.values()
            if shown and group.name in (BILLING, ANALYTICS)
            for own in [group.name == BILLING]
            for label in [self.label(group.last) if group.last != "0-0" else "none"]
        ]

    def _state(self, id: str) -> str:
        if id in self._survey.buried:
            return "dead"
        if id in self._survey.done:
            return "done"
        if any(held.id == id for held in self._survey.held):
            return "pending"
        group = self._survey.groups.get(BILLING)
        return "done" if group and _key(id) <= _key(group.last) else "waiting"

    # The lanes

    def lanes(self) -> list[Lane]:
        ours = [one.name for one in self._wanted]
        others = sorted(
            name
            for name, ago_ms in self._survey.seen_ms.items()
            if name not in ours and (ago_ms < SPAN_MS or self._held_by(name))
        )
        lanes = [self._lane(one.name, one.down_ms, ours=True) for one in self._wanted]
        return lanes + [self._lane(name, None, ours=False) for name in others]

    def _lane(self, name: str, down_ms: int | None, *, ours: bool) -> Lane:
        held = self._held_by(name)
        working = self._in_work(held) if down_ms is None else None
        tone, state = self._said(name, down_ms, working)
        action = ("kill" if down_ms is None else "restart") if ours else ""
        lane = Lane(name, tone, state, len(held), action)
        lane.blocks = [
            block
            for id, done in self._survey.done.items()
            if done.worker == name and (block := self._block(id, done))
        ]
        claims = [c for c in self._survey.claims if self._x(c.at_ms) > 0]
        lane.claims = sorted({self._x(c.at_ms) for c in claims if c.by == name})
        lane.lost = sorted({self._x(c.at_ms) for c in claims if c.taken_from == name})
        if working:
            x = self._x(self._survey.now_ms - working.idle_ms)
            label = self._fitting(working.id, WIDTH - x)
            again = working.deliveries > 1
            lane.open = Block(x, max(WIDTH - x, _LEAST), label, again)
        if down_ms is not None:
            lane.down = self._x(down_ms)
            lane.chips = self._chips([h.id for h in held], lane.down + 5)
        return lane

    def _block(self, id: str, done: Done) -> Block | None:
        left, right = self._x(done.began_ms), self._x(done.ended_ms)
        if right <= 0:
            return None
        width = max(right - left - 1, _LEAST)
        label = self._fitting(id, width)
        return Block(left, round(width, 1), label, done.deliveries > 1)

    def _fitting(self, id: str, width: float) -> str:
        label = self.label(id)
        return label if width > len(label) * _DIGIT + 2 else ""

    def _chips(self, ids: Sequence[str], left: float) -> list[Mark]:
        room = int((WIDTH - left) // _CHIP_STEP)
        return [
            Mark(round(left + i * _CHIP_STEP, 1), self.label(id))
            for i, id in enumerate(ids[:room])
        ]

    def _said(
        self, name: str, down_ms: int | None, working: Held | None
    ) -> tuple[str, str]:
        if down_ms is not None:
            return "no", "killed"
        seen_ms = self._survey.seen_ms.get(name)
        if seen_ms is None:
            return "wait", "starting"
        if seen_ms > _SILENT_MS:
            return "wait", "silent"
        return ("ok", "busy") if working else ("", "idle")

    def _in_work(self, held: Sequence[Held]) -> Held | None:
        """The last one it got; others failed, and wait to be tried again."""
        newest = min(held, key=lambda one: one.idle_ms, default=None)
        return newest if newest and newest.idle_ms < _SILENT_MS else None

    def _held_by(self, name: str) -> list[Held]:
        return [held for held in self._survey.held if held.consumer == name]

    def dead_chips(self) -> list[Mark]:
        found = [(self._x(ms_of(one.id)), one) for one in self._survey.letters]
        return [
            Mark(min(x, WIDTH - _CHIP), str(one.number or tail(one.origin)))
            for x, one in found
            if x > 0
        ]

    # The words

    def rows(self) -> list[Row]:
        return [
            Row(
                id=tail(held.id),
                number=str(self._numbers.get(held.id) or ""),
                consumer=held.consumer,
                idle_ms=held.idle_ms,
                deliveries=held.deliveries,
                note=self._story(held),
            )
            for held in self._survey.held[:ROWS]
        ]

    def _story(self, held: Held) -> str:
        if held.consumer in self._down:
            return "its worker was killed"
        working = self._in_work(self._held_by(held.consumer))
        if working is None or working.id != held.id:
            return "failed, waits to be tried again"
        claim = self._claimed.get((held.id, held.consumer))
        return f"reclaimed from {claim.taken_from}" if claim else "in work"

    def note(self) -> str:
        """What became of the worker that was killed last."""
        down = [one for one in self._wanted if one.down_ms is not None]
        newest = max(down, key=lambda one: one.down_ms or 0, default=None)
        if newest is None or newest.down_ms is None:
            return f"reclaimed after {self._reclaim_ms // 1000} s without XACK"
        ago_s = max(0, self._survey.now_ms - newest.down_ms) // 1000
        taken = [
            claim
            for claim in self._survey.claims
            if claim.taken_from == newest.name and claim.at_ms >= newest.down_ms
        ]
        left = len(self._held_by(newest.name))
        told = f"{newest.name} killed {ago_s} s ago, "
        if left:
            what = "its order waits" if left == 1 else f"its {left} orders wait"
            return f"{told}{what} to be reclaimed"
        if taken:
            n = len({claim.id for claim in taken})
            what = "its order" if n == 1 else f"its {n} orders"
            return f"{told}{what} reclaimed after {self._reclaim_ms // 1000} s idle"
        return f"{told}it had nothing pending"

    def _x(self, at_ms: int) -> float:
        share = 1 - (self._survey.now_ms - at_ms) / SPAN_MS
        return round(min(max(share, 0.0), 1.0) * WIDTH, 1)


def _key(id: str) -> tuple[int, int]:
    ms, _, n = id.partition("-")
    return int(ms), int(n or 0)
