"""Break the pipeline: an early XACK, swallowed errors, no reclaim, a poison order."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field

import redis
from redis.exceptions import RedisError

from webapp import keys
from webapp.experiments import (
    Bench,
    Control,
    Experiment,
    Lane,
    Outcome,
    Replay,
    Row,
    Run,
    Tone,
    compare,
    running,
)
from webapp.patterns.streams.bounded_stream import BoundedStream
from webapp.patterns.streams.consumer_group import ConsumerGroup, Delivery
from webapp.patterns.streams.dead_letters import DeadLetters

_TTL_MS = 60_000
_STREAM = BoundedStream(once_ms=_TTL_MS, count_ms=_TTL_MS)
# Time does not have to pass in a replay: what was left may be claimed at once.
_GROUP = ConsumerGroup(idle_ms=0, block_ms=1, outcome_ms=_TTL_MS)
_LETTERS = DeadLetters(outcome_ms=_TTL_MS)
_BILLING = "billing"
_POISON = b"not an order"


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
        _GROUP.join(self.client, self.stream, group=_BILLING)
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
            self.client, self.stream, group=_BILLING, consumer=worker, count=count
        )

    def claim(self, worker: str) -> list[Delivery]:
        taken = _GROUP.claim(self.client, self.stream, group=_BILLING, consumer=worker)
        return taken.deliveries

    def finish(self, deliveries: list[Delivery]) -> int:
        """Bill them; how many were billed by this."""
        return sum(
            _GROUP.finish(
                self.client,
                self.stream,
                delivery,
                group=_BILLING,
                outcome=self._note(f"outcome-{delivery.origin}"),
                totals=self.totals,
                text="billed",
                add=bill(delivery),
            )
            for delivery in deliveries
        )

    def bury(self, delivery: Delivery, reason: str) -> bool:
        moved = _LETTERS.bury(
            self.client,
            self.stream,
            delivery,
            group=_BILLING,
            dead=self.dead,
            outcome=self._note(f"outcome-{delivery.origin}"),
            reason=reason,
        )
        self.client.pexpire(self.dead, _TTL_MS)
        return moved

    def billed(self) -> int:
        return int(self.client.hget(self.totals, "orders") or 0)

    def pending(self) -> int:
        return len(self.client.xpending_range(self.stream, _BILLING, "-", "+", 100))

    def kill(self, worker: str, when: str) -> None:
        """From here on it does nothing, as after kill -9."""
        self.replay.step(
            worker, f"is killed {when}", lambda: None, shown=lambda _: "gone", tone=_no
        )

    def _note(self, name: str) -> str:
        return self.run.key(f"{self.name}-{name}", keys.STREAMS_LAB_NOTE)


def bill(delivery: Delivery) -> Mapping[str, int]:
    """Raises NotAnOrder."""
    if delivery.payload == _POISON:
        raise NotAnOrder("this is no order")
    return {"orders": 1}


# Acknowledge before the effect


def run_early_ack(bench: Bench) -> Outcome:
    with running(bench, "early-ack") as run:
        broken = Scene(bench.client, run, "early")
        _begin(broken)
        [order] = _a_reads(broken)
        # Flaw: whoever is killed after this takes the order along.
        broken.replay.step(
            "Worker A",
            "acknowledges it first",
            lambda: bench.client.xack(broken.stream, _BILLING, order.id),
            shown=lambda n: f"{n} acknowledged",
        )
        broken.kill("Worker A", "before it has written the bill")
        _b_claims(broken)
        early = _count_bills(broken, of=1)

        fixed = Scene(bench.client, run, "together")
        _begin(fixed)
        _a_reads(fixed)
        fixed.kill("Worker A", "before it has finished")
        _finish(fixed, _b_claims(fixed))
        together = _count_bills(fixed, of=1)
    lanes = [_lane("XACK first", broken), _lane("One script", fixed)]
    return Outcome(
        rows=_rows(
            "Orders billed of 1", ("XACK first", "one script"), (early, together)
        ),
        summary=f"A is killed with an order in hand. Acknowledged first, {early} of 1 "
        f"is billed, and nobody knows of it. In one script, {together} of 1.",
        tone="ok" if early else "no",
        verdict="billed" if early else "order lost",
        recordings=run.recordings,
        lanes=lanes,
    )


# except: pass at group creation


def join_quietly(client: redis.Redis, stream: str) -> None:
    # Flaw: this hides that the stream is not there yet, so there is no group either.
    with suppress(Exception):
        client.xgroup_create(stream, _BILLING, id="0")


def read_quietly(scene: Scene) -> list[Delivery]:
    # Flaw: NOGROUP is hidden as well, each time.
    with suppress(Exception):
        return scene.read("A")
    return []


def run_swallowed(bench: Bench, *, orders: int) -> Outcome:
    payloads = [b"order"] * orders
    with running(bench, "swallowed") as run:
        broken = Scene(bench.client, run, "quiet")
        broken.replay.step(
            "Worker A",
            "makes its group, except: pass",
            lambda: join_quietly(bench.client, broken.stream),
            shown=lambda _: "an error that nobody sees: there is no stream",
            tone=_no,
        )
        _place(broken, payloads)
        broken.replay.step(
            "Worker A",
            "reads, except: pass",
            lambda: read_quietly(broken),
            shown=lambda found: f"{len(found)} orders: there is no group",
            tone=_no,
        )
        idle = _count_bills(broken, of=orders)

        fixed = Scene(bench.client, run, "loud")
        for worker in ("Worker A", "Worker B"):
            fixed.replay.step(
                worker,
                "makes the group and the stream; BUSYGROUP alone is no error",
                fixed.join,
                shown=lambda _: "the group is there",
            )
        _place(fixed, payloads)
        found = fixed.replay.step(
            "Worker A",
            "reads",
            lambda: fixed.read("A", orders),
            shown=lambda found: f"{len(found)} orders",
        )
        _finish(fixed, found, "Worker A")
        worked = _count_bills(fixed, of=orders)
    sides = ("except: pass", "BUSYGROUP only")
    return Outcome(
        rows=_rows(f"Orders billed of {orders}", sides, (idle, worked)),
        summary=f"With every error swallowed the worker runs, and bills {idle} of "
        f"{orders} orders. With only BUSYGROUP tolerated it bills {worked}.",
        tone="ok" if idle else "no",
        verdict="billed" if idle else "silent for ever",
        recordings=run.recordings,
        lanes=[
            _lane("except: pass", broken),
            _lane("BUSYGROUP only", fixed),
        ],
    )


# No reclaim


def run_no_reclaim(bench: Bench, *, orders: int) -> Outcome:
    payloads = [b"order"] * orders
    with running(bench, "no-reclaim") as run:
        broken = Scene(bench.client, run, "left")
        _begin(broken, payloads)
        _a_reads(broken, orders)
        broken.kill("Worker A", "with all of them in hand")
        for _ in range(2):
            # Flaw: > asks for what nobody has had, and all of it was had by A.
            broken.replay.step(
                "Worker B",
                "reads what is new",
                lambda: broken.read("B", orders),
                shown=lambda found: f"{len(found)} orders",
                tone=_no,
            )
        hang = _count_pending(broken)

        fixed = Scene(bench.client, run, "claimed")
        _begin(fixed, payloads)
        _a_reads(fixed, orders)
        fixed.kill("Worker A", "with all of them in hand")
        _finish(fixed, _b_claims(fixed))
        rest = _count_pending(fixed)
    return Outcome(
        rows=compare("Still pending", ("no reclaim", "XAUTOCLAIM"), (hang, rest)),
        summary=f"A dies with {orders} orders. Without a reclaim {hang} stay pending "
        f"for ever, with XAUTOCLAIM {rest}.",
        tone="no" if hang else "ok",
        verdict=f"{hang} hang" if hang else "none hangs",
        recordings=run.recordings,
        lanes=[_lane("No reclaim", broken), _lane("XAUTOCLAIM", fixed)],
    )


# A poison message


def run_poison(bench: Bench, *, tries: int) -> Outcome:
    payloads = [_POISON, b"order"]
    with running(bench, "poison") as run:
        broken = Scene(bench.client, run, "loop")
        _begin(broken, payloads)
        failed = broken.replay.step(
            "Worker A",
            f"tries the oldest order until it works: {tries} times",
            lambda: try_again_and_again(broken, tries),
            shown=lambda n: f"failed {n} times, and is the oldest still",
            tone=_no,
        )
        blocked = _count_bills(broken, of=1)

        fixed = Scene(bench.client, run, "counted")
        _begin(fixed, payloads)
        buried_after = fixed.replay.step(
            "Worker A",
            f"tries it, and counts: at most {_LETTERS.most_deliveries} deliveries",
            lambda: _try_and_count(fixed),
            shown=lambda n: f"to the dead letters after {n}",
        )
        _finish(fixed, _a_reads(fixed), "Worker A")
        flows = _count_bills(fixed, of=1)
    sides = "no count", "dead letter"
    return Outcome(
        rows=[
            *compare("Tries at the poison", sides, (failed, buried_after)),
            *_rows("Good orders billed of 1", sides, (blocked, flows)),
        ],
        summary=f"One order always fails. Without a count it is tried {failed} times, "
        f"and {blocked} of 1 order behind it is billed. With one it is put aside after "
        f"{buried_after}, and {flows} of 1 is billed.",
        tone="ok" if blocked else "no",
        verdict="flows" if blocked else "queue blocked",
        recordings=run.recordings,
        lanes=[_lane("No count", broken), _lane("Dead letter", fixed)],
    )


def try_again_and_again(scene: Scene, tries: int) -> int:
    """How often it failed."""
    failed, orders = 0, scene.read("A")
    for _ in range(tries):
        try:
            scene.finish(orders)
        except NotAnOrder:
            failed += 1
        # Flaw: it comes back as often as it fails, and what is behind it waits.
        orders = scene.claim("A")
    return failed


def _try_and_count(scene: Scene) -> int:
    """After how many deliveries it was buried."""
    orders = scene.read("A")
    while orders:
        [order] = orders
        try:
            scene.finish([order])
        except NotAnOrder as error:
            if _LETTERS.is_last(order):
                scene.bury(order, str(error))
                return order.deliveries
        orders = scene.claim("A")
    raise RedisError("the poison was not delivered")


# What several of them do


def _lane(title: str, scene: Scene) -> Lane:
    return scene.replay.lane(title)


def _no(_: object) -> Tone:
    return "no"


def _rows(what: str, sides: tuple[str, str], billed: tuple[int, int]) -> list[Row]:
    """More is better here."""
    most = max(*billed, 1)
    return [
        Row(f"{what}, {side}", f"{n}", "ok" if n == most else "no", n / most)
        for side, n in zip(sides, billed, strict=True)
    ]


def _begin(scene: Scene, payloads: list[bytes] | None = None) -> None:
    with scene.run.recording(f"Make the group, {scene.name}"):
        scene.join()
    _place(scene, payloads or [b"order"])


def _place(scene: Scene, payloads: list[bytes]) -> None:
    what = "an order comes" if len(payloads) == 1 else f"{len(payloads)} orders come"
    scene.replay.step(
        "Shop",
        what,
        lambda: scene.place(payloads),
        shown=lambda length: f"length {length}",
    )


def _a_reads(scene: Scene, count: int = 1) -> list[Delivery]:
    return scene.replay.step(
        "Worker A",
        "reads",
        lambda: scene.read("A", count),
        shown=lambda found: f"{len(found)} delivered",
    )


def _b_claims(scene: Scene) -> list[Delivery]:
    return scene.replay.step(
        "Worker B",
        "claims what others have left",
        lambda: scene.claim("B"),
        shown=lambda found: f"{len(found)} claimed",
        tone=lambda found: "ok" if found else "no",
    )


def _finish(scene: Scene, orders: list[Delivery], worker: str = "Worker B") -> None:
    scene.replay.step(
        worker,
        "bills and acknowledges, in one step",
        lambda: scene.finish(orders),
        shown=lambda n: f"{n} billed",
    )


def _count_bills(scene: Scene, *, of: int) -> int:
    return scene.replay.step(
        "You",
        "count the bills",
        scene.billed,
        shown=lambda n: f"{n} of {of}",
        tone=lambda n: "ok" if n == of else "no",
    )


def _count_pending(scene: Scene) -> int:
    return scene.replay.step(
        "You",
        "count what is pending",
        scene.pending,
        shown=lambda n: f"{n} pending",
        tone=lambda n: "no" if n else "ok",
    )


EXPERIMENTS: tuple[Experiment, ...] = (
    Experiment(
        name="early-ack",
        title="Acknowledge before the effect",
        hypothesis="XACK first, then the bill: a worker that is killed in between "
        "takes the order along. Both in one script: nothing falls in between.",
        controls=(),
        run=run_early_ack,
        replayed=True,
    ),
    Experiment(
        name="swallowed",
        title="Swallow the errors",
        hypothesis="except: pass around the group's creation hides every error, not "
        "only that the group is there. The worker runs, and does nothing.",
        controls=(
            Control("orders", "Orders", "range", min=1, max=10, step=1, value=5),
        ),
        run=run_swallowed,
        replayed=True,
    ),
    Experiment(
        name="no-reclaim",
        title="Leave what a dead worker had",
        hypothesis="What was delivered to a worker belongs to it, also when it is "
        "dead. Nobody else gets it, unless it is claimed.",
        controls=(
            Control("orders", "Orders", "range", min=1, max=10, step=1, value=3),
        ),
        run=run_no_reclaim,
        replayed=True,
    ),
    Experiment(
        name="poison",
        title="Send an order that always fails",
        hypothesis="Tried until it works, it holds up all that come after it. Counted, "
        "it is among the dead letters after five deliveries.",
        controls=(Control("tries", "Tries", "range", min=6, max=20, step=1, value=12),),
        run=run_poison,
        replayed=True,
    ),
)
