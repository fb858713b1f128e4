"""Break the pipeline: an early XACK, swallowed errors, no reclaim, a poison order."""

from contextlib import suppress

import redis
from redis.exceptions import RedisError

from webapp.experiments import Bench, Control, Experiment, Outcome, compare, running
from webapp.experiments.pipeline import (
    BILLING,
    LETTERS,
    POISON,
    NotAnOrder,
    Scene,
    a_reads,
    b_claims,
    begin,
    billed_rows,
    count_bills,
    count_pending,
    finish,
    flawed,
    place,
)
from webapp.patterns.streams.consumer_group import Delivery

# Acknowledge before the effect


def run_early_ack(bench: Bench) -> Outcome:
    with running(bench, "early-ack") as run:
        broken = Scene(bench.client, run, "early")
        begin(broken)
        [order] = a_reads(broken)
        # Flaw: whoever is killed after this takes the order along.
        broken.replay.step(
            "Worker A",
            "acknowledges it first",
            lambda: bench.client.xack(broken.stream, BILLING, order.id),
            shown=lambda n: f"{n} acknowledged",
        )
        broken.kill("Worker A", "before it has written the bill")
        b_claims(broken)
        early = count_bills(broken, of=1)

        fixed = Scene(bench.client, run, "together")
        begin(fixed)
        a_reads(fixed)
        fixed.kill("Worker A", "before it has finished")
        finish(fixed, b_claims(fixed))
        together = count_bills(fixed, of=1)
    lanes = [broken.replay.lane("XACK first"), fixed.replay.lane("One script")]
    return Outcome(
        rows=billed_rows(
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
        client.xgroup_create(stream, BILLING, id="0")


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
            tone=flawed,
        )
        place(broken, payloads)
        broken.replay.step(
            "Worker A",
            "reads, except: pass",
            lambda: read_quietly(broken),
            shown=lambda found: f"{len(found)} orders: there is no group",
            tone=flawed,
        )
        idle = count_bills(broken, of=orders)

        fixed = Scene(bench.client, run, "loud")
        for worker in ("Worker A", "Worker B"):
            fixed.replay.step(
                worker,
                "makes the group and the stream; BUSYGROUP alone is no error",
                fixed.join,
                shown=lambda _: "the group is there",
            )
        place(fixed, payloads)
        found = fixed.replay.step(
            "Worker A",
            "reads",
            lambda: fixed.read("A", orders),
            shown=lambda found: f"{len(found)} orders",
        )
        finish(fixed, found, "Worker A")
        worked = count_bills(fixed, of=orders)
    sides = ("except: pass", "BUSYGROUP only")
    return Outcome(
        rows=billed_rows(f"Orders billed of {orders}", sides, (idle, worked)),
        summary=f"With every error swallowed the worker runs, and bills {idle} of "
        f"{orders} orders. With only BUSYGROUP tolerated it bills {worked}.",
        tone="ok" if idle else "no",
        verdict="billed" if idle else "silent for ever",
        recordings=run.recordings,
        lanes=[
            broken.replay.lane("except: pass"),
            fixed.replay.lane("BUSYGROUP only"),
        ],
    )


# No reclaim


def run_no_reclaim(bench: Bench, *, orders: int) -> Outcome:
    payloads = [b"order"] * orders
    with running(bench, "no-reclaim") as run:
        broken = Scene(bench.client, run, "left")
        begin(broken, payloads)
        a_reads(broken, orders)
        broken.kill("Worker A", "with all of them in hand")
        for _ in range(2):
            # Flaw: > asks for what nobody has had, and all of it was had by A.
            broken.replay.step(
                "Worker B",
                "reads what is new",
                lambda: broken.read("B", orders),
                shown=lambda found: f"{len(found)} orders",
                tone=flawed,
            )
        hang = count_pending(broken)

        fixed = Scene(bench.client, run, "claimed")
        begin(fixed, payloads)
        a_reads(fixed, orders)
        fixed.kill("Worker A", "with all of them in hand")
        finish(fixed, b_claims(fixed))
        rest = count_pending(fixed)
    return Outcome(
        rows=compare("Still pending", ("no reclaim", "XAUTOCLAIM"), (hang, rest)),
        summary=f"A dies with {orders} orders. Without a reclaim {hang} stay pending "
        f"for ever, with XAUTOCLAIM {rest}.",
        tone="no" if hang else "ok",
        verdict=f"{hang} hang" if hang else "none hangs",
        recordings=run.recordings,
        lanes=[broken.replay.lane("No reclaim"), fixed.replay.lane("XAUTOCLAIM")],
    )


# A poison message


def run_poison(bench: Bench, *, tries: int) -> Outcome:
    payloads = [POISON, b"order"]
    with running(bench, "poison") as run:
        broken = Scene(bench.client, run, "loop")
        begin(broken, payloads)
        failed = broken.replay.step(
            "Worker A",
            f"tries the oldest order until it works: {tries} times",
            lambda: try_again_and_again(broken, tries),
            shown=lambda n: f"failed {n} times, and is the oldest still",
            tone=flawed,
        )
        blocked = count_bills(broken, of=1)

        fixed = Scene(bench.client, run, "counted")
        begin(fixed, payloads)
        buried_after = fixed.replay.step(
            "Worker A",
            f"tries it, and counts: at most {LETTERS.most_deliveries} deliveries",
            lambda: _try_and_count(fixed),
            shown=lambda n: f"to the dead letters after {n}",
        )
        finish(fixed, a_reads(fixed), "Worker A")
        flows = count_bills(fixed, of=1)
    sides = "no count", "dead letter"
    return Outcome(
        rows=[
            *compare("Tries at the poison", sides, (failed, buried_after)),
            *billed_rows("Good orders billed of 1", sides, (blocked, flows)),
        ],
        summary=f"One order always fails. Without a count it is tried {failed} times, "
        f"and {blocked} of 1 order behind it is billed. With one it is put aside after "
        f"{buried_after}, and {flows} of 1 is billed.",
        tone="ok" if blocked else "no",
        verdict="flows" if blocked else "queue blocked",
        recordings=run.recordings,
        lanes=[broken.replay.lane("No count"), fixed.replay.lane("Dead letter")],
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
            if LETTERS.is_last(order):
                scene.bury(order, str(error))
                return order.deliveries
        orders = scene.claim("A")
    raise RedisError("the poison was not delivered")


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
