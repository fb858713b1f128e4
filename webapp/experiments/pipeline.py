"""A small pipeline on scratch keys, and the steps that the replays are made of."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import redis

from webapp import keys
from webapp.experiments import Replay, Row, Run, Tone
from webapp.patterns.streams.bounded_stream import BoundedStream
from webapp.patterns.streams.consumer_group import ConsumerGroup, Delivery
from webapp.patterns.streams.dead_letters import DeadLetters

_TTL_MS = 60_000
_STREAM = BoundedStream(once_ms=_TTL_MS, count_ms=_TTL_MS)
# Time does not have to pass in a replay: what was left may be claimed at once.
_GROUP = ConsumerGroup(idle_ms=0, block_ms=1, outcome_ms=_TTL_MS)
LETTERS = DeadLetters(outcome_ms=_TTL_MS)
BILLING = "billing"
POISON = b"not an order"


class NotAnOrder(Exception):
    """A payload on which every worker fails."""


@dataclass
class Scene:
    """A stream of its own with a group on it, and who does what to it."""

    client: redis.Redis
    run: Run
    name: str
    replay: Replay = field(init=False)

    def __post_init__(self) -> None:
        self.replay = Replay(self.run)
        self.stream = self.run.key(f"{self.name}-stream")
        self.dead = self.run.key(f"{self.name}-dead")
        self.totals = self.run.key(f"{self.name}-totals", keys.STREAMS_LAB_TOTALS)
        self.counter = self._note("number")

    def join(self) -> None:
        _GROUP.join(self.client, self.stream, group=BILLING)
        self.client.pexpire(self.stream, _TTL_MS)

    def place(self, payloads: list[bytes]) -> int:
        """The orders come; how many are in the stream now."""
        for n, payload in enumerate(payloads):
            once = self._note(f"once-{n}")
            _STREAM.append(
                self.client,
                self.stream,
                once=once,
                counter=self.counter,
                payload=payload,
            )
        self.client.pexpire(self.stream, _TTL_MS)
        return int(self.client.xlen(self.stream))

    def read(self, worker: str, count: int = 1) -> list[Delivery]:
        return _GROUP.read(
            self.client, self.stream, group=BILLING, consumer=worker, count=count
        )

    def claim(self, worker: str) -> list[Delivery]:
        taken = _GROUP.claim(self.client, self.stream, group=BILLING, consumer=worker)
        return taken.deliveries

    def finish(self, deliveries: list[Delivery]) -> int:
        """Bill them; how many were billed by this."""
        return sum(
            _GROUP.finish(
                self.client,
                self.stream,
                delivery,
                group=BILLING,
                outcome=self._note(f"outcome-{delivery.origin}"),
                totals=self.totals,
                text="billed",
                add=bill(delivery),
            )
            for delivery in deliveries
        )

    def bury(self, delivery: Delivery, reason: str) -> bool:
        moved = LETTERS.bury(
            self.client,
            self.stream,
            delivery,
            group=BILLING,
            dead=self.dead,
            outcome=self._note(f"outcome-{delivery.origin}"),
            reason=reason,
        )
        self.client.pexpire(self.dead, _TTL_MS)
        return moved

    def billed(self) -> int:
        return int(self.client.hget(self.totals, "orders") or 0)

    def pending(self) -> int:
        return len(self.client.xpending_range(self.stream, BILLING, "-", "+", 100))

    def kill(self, worker: str, when: str) -> None:
        """From here on it does nothing, as after kill -9."""
        self.replay.step(
            worker,
            f"is killed {when}",
            lambda: None,
            shown=lambda _: "gone",
            tone=flawed,
        )

    def _note(self, name: str) -> str:
        return self.run.key(f"{self.name}-{name}", keys.STREAMS_LAB_NOTE)


def bill(delivery: Delivery) -> Mapping[str, int]:
    """Raises NotAnOrder."""
    if delivery.payload == POISON:
        raise NotAnOrder("this is no order")
    return {"orders": 1}


def flawed(_: object) -> Tone:
    """The tone of a step that is wrong whatever it answers."""
    return "no"


def billed_rows(
    what: str, sides: tuple[str, str], billed: tuple[int, int]
) -> list[Row]:
    """More is better here."""
    most = max(*billed, 1)
    return [
        Row(f"{what}, {side}", f"{n}", "ok" if n == most else "no", n / most)
        for side, n in zip(sides, billed, strict=True)
    ]


def begin(scene: Scene, payloads: list[bytes] | None = None) -> None:
    with scene.run.recording(f"Make the group, {scene.name}"):
        scene.join()
    place(scene, payloads or [b"order"])


def place(scene: Scene, payloads: list[bytes]) -> None:
    what = "an order comes" if len(payloads) == 1 else f"{len(payloads)} orders come"
    scene.replay.step(
        "Shop",
        what,
        lambda: scene.place(payloads),
        shown=lambda length: f"length {length}",
    )


def a_reads(scene: Scene, count: int = 1) -> list[Delivery]:
    return scene.replay.step(
        "Worker A",
        "reads",
        lambda: scene.read("A", count),
        shown=lambda found: f"{len(found)} delivered",
    )


def b_claims(scene: Scene) -> list[Delivery]:
    return scene.replay.step(
        "Worker B",
        "claims what others have left",
        lambda: scene.claim("B"),
        shown=lambda found: f"{len(found)} claimed",
        tone=lambda found: "ok" if found else "no",
    )


def finish(scene: Scene, orders: list[Delivery], worker: str = "Worker B") -> None:
    scene.replay.step(
        worker,
        "bills and acknowledges, in one step",
        lambda: scene.finish(orders),
        shown=lambda n: f"{n} billed",
    )


def count_bills(scene: Scene, *, of: int) -> int:
    return scene.replay.step(
        "You",
        "count the bills",
        scene.billed,
        shown=lambda n: f"{n} of {of}",
        tone=lambda n: "ok" if n == of else "no",
    )


def count_pending(scene: Scene) -> int:
    return scene.replay.step(
        "You",
        "count what is pending",
        scene.pending,
        shown=lambda n: f"{n} pending",
        tone=lambda n: "no" if n else "ok",
    )
