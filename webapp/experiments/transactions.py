"""Break the transfer: four ways to lose or make money, each beside the right one."""

from collections.abc import Callable
from contextlib import ExitStack

import redis
from redis.exceptions import ResponseError

from webapp.experiments import (
    Bench,
    Experiment,
    Lane,
    Outcome,
    Replay,
    Row,
    Run,
    running,
)
from webapp.patterns.transactions import Look, Moved, Pair, Transfers

_TTL_MS = 10_000
_START = 100  # € of the giver
_MOST = 80  # of two such transfers, only one can be paid
_SOME = 30  # two of these can
_TRANSFERS = Transfers(ttl_ms=_TTL_MS)


# Read, then write


def read_balance(client: redis.Redis, pair: Pair) -> int:
    return int(client.get(pair.giver) or 0)


def write_balances(client: redis.Redis, pair: Pair, balance: int, amount: int) -> None:
    # Race: both read 100 (1), both find that it is enough, and both write 20 (2).
    client.set(pair.giver, balance - amount, px=_TTL_MS)
    client.incrby(pair.taker, amount)
    client.pexpire(pair.taker, _TTL_MS)


def run_read_then_write(bench: Bench) -> Outcome:
    client = bench.client
    with running(bench, "plain") as run:
        pairs, replay = _accounts(bench, run, "plain"), Replay(run)
        seen = [
            replay.step(
                f"Client {n}",
                "reads the balance",
                lambda pair=pair: read_balance(client, pair),  # type: ignore[misc]
                shown=_euros,
            )
            for n, pair in enumerate(pairs, 1)
        ]
        for n, (pair, balance) in enumerate(zip(pairs, seen, strict=True), 1):
            replay.step(
                f"Client {n}",
                f"has seen enough and writes what it worked out for {_euros(_MOST)}",
                lambda pair=pair, balance=balance: write_balances(  # type: ignore[misc]
                    client, pair, balance, _MOST
                ),
                shown=lambda _: "written",
            )
        made = _count(bench, replay, pairs)
        plain = replay.lane("Read, then write")
        script, whole = _scripted(bench, run)
    return Outcome(
        rows=[_money("read, then write", made), _money("one script", whole)],
        summary=f"Two transfers of {_euros(_MOST)} from {_euros(_START)}. Read and "
        f"write apart leave {_euros(made)} in all, one script {_euros(whole)}.",
        tone=plain.tone,
        verdict="money made" if made > _START else "money kept",
        recordings=run.recordings,
        lanes=[plain, script],
    )


def _scripted(bench: Bench, run: Run) -> tuple[Lane, int]:
    pairs, replay = _accounts(bench, run, "script"), Replay(run)
    for n, pair in enumerate(pairs, 1):
        replay.step(
            f"Client {n}",
            f"moves {_euros(_MOST)} if it is there",
            lambda pair=pair: _TRANSFERS.scripted(  # type: ignore[misc]
                bench.client, pair, amount=_MOST
            ),
            shown=_told,
            tone=lambda moved: "ok" if moved.done else "wait",
        )
    money = _count(bench, replay, pairs)
    return replay.lane("One script"), money


# MULTI without a look


def run_no_look(bench: Bench) -> Outcome:
    client = bench.client
    with running(bench, "no-look") as run:
        pairs, replay = _accounts(bench, run, "multi"), Replay(run)
        for n, pair in enumerate(pairs, 1):
            replay.step(
                f"Client {n}",
                f"moves {_euros(_MOST)} in a MULTI, which cannot look first",
                lambda pair=pair: _TRANSFERS.queued(  # type: ignore[misc]
                    client, pair, amount=_MOST
                ),
                shown=_told,
                tone=lambda moved: "ok" if moved.left >= 0 else "no",
            )
        left = read_balance(client, pairs[0])
        blind = replay.lane("MULTI alone")
        looking, kept = _watched(bench, run)
    return Outcome(
        rows=[
            Row("Giver's balance, MULTI alone", _euros(left), blind.tone),
            Row("Giver's balance, WATCH", _euros(kept), "ok" if kept >= 0 else "no"),
        ],
        summary=f"Two transfers of {_euros(_MOST)} from {_euros(_START)}. MULTI alone "
        f"leaves {_euros(left)}, WATCH {_euros(kept)}.",
        tone=blind.tone,
        verdict="overdrawn" if left < 0 else "covered",
        recordings=run.recordings,
        lanes=[blind, looking],
    )


def _watched(bench: Bench, run: Run) -> tuple[Lane, int]:
    """Both look, the second moves first; the lane and what the giver has left."""
    pairs, replay = _accounts(bench, run, "watch"), Replay(run)
    with ExitStack() as open_looks:
        first, second = _both_look(bench, replay, open_looks, pairs)
        _move(replay, "Client 2", second, _MOST)
        _move(replay, "Client 1", first, _MOST)
    replay.step(
        "Client 1",
        "looks again, as it should",
        lambda: _TRANSFERS.watched(bench.client, pairs[0], amount=_MOST),
        shown=_told,
        tone=lambda moved: "no" if moved.left < 0 else "ok",
    )
    return replay.lane("WATCH, and look again"), read_balance(bench.client, pairs[0])


# WATCH without a retry


def run_no_retry(bench: Bench) -> Outcome:
    with running(bench, "no-retry") as run:
        once, lost = _race(bench, run, "Take EXEC for done", again=False)
        retried, kept = _race(bench, run, "Try again", again=True)
    asked = 2 * _SOME
    return Outcome(
        rows=[
            Row("Arrived, no retry", _of(lost, asked), once.tone, lost / asked),
            Row("Arrived, retry", _of(kept, asked), retried.tone, kept / asked),
        ],
        summary=f"Of {_euros(asked)} sent, {_euros(lost)} arrive without a retry, "
        f"{_euros(kept)} with one.",
        tone=once.tone,
        verdict="transfer lost" if lost < asked else "both arrived",
        recordings=run.recordings,
        lanes=[once, retried],
    )


def _race(bench: Bench, run: Run, title: str, *, again: bool) -> tuple[Lane, int]:
    """The lane, and how much arrived of two transfers that could both be paid."""
    pairs = _accounts(bench, run, "again" if again else "once")
    replay = Replay(run)
    with ExitStack() as open_looks:
        first, second = _both_look(bench, replay, open_looks, pairs)
        _move(replay, "Client 2", second, _SOME)
        _move(replay, "Client 1", first, _SOME)
    if again:
        replay.step(
            "Client 1",
            "was told that nothing was done, and looks again",
            lambda: _TRANSFERS.watched(bench.client, pairs[0], amount=_SOME),
            shown=_told,
        )
    arrived = replay.step(
        "Takers",
        "count what came",
        lambda: sum(map(int, filter(None, _mget(bench, [p.taker for p in pairs])))),
        shown=_euros,
        tone=lambda came: "ok" if came == 2 * _SOME else "no",
    )
    return replay.lane(title), arrived


# An error inside MULTI


def run_no_rollback(bench: Bench) -> Outcome:
    with running(bench, "rollback") as run:
        queued, lost = _to_a_list(bench, run, "MULTI", _TRANSFERS.queued)
        script, kept = _to_a_list(bench, run, "Script", _TRANSFERS.scripted)
    return Outcome(
        rows=[_money("MULTI", lost), _money("script", kept)],
        summary=f"The taker's key holds a list. After the error {_euros(lost)} of "
        f"{_euros(_START)} are left with MULTI, {_euros(kept)} with the script.",
        tone=queued.tone,
        verdict="half done" if lost < _START else "nothing done",
        recordings=run.recordings,
        lanes=[queued, script],
    )


def _to_a_list(
    bench: Bench, run: Run, title: str, move: Callable[..., Moved]
) -> tuple[Lane, int]:
    """The lane, and what is left of the giver's money after the error."""
    client, replay = bench.client, Replay(run)
    pair = _accounts(bench, run, title.lower())[0]
    with run.recording("Set up the taker's list"):
        client.lpush(pair.taker, "not a number")
        client.pexpire(pair.taker, _TTL_MS)

    def fail() -> str:
        try:
            move(client, pair, amount=_SOME)
        except ResponseError as error:
            return "INCRBY: WRONGTYPE" if "WRONGTYPE" in str(error) else str(error)
        return "no error"

    replay.step(
        "Client",
        f"moves {_euros(_SOME)} to a key that holds a list",
        fail,
        shown=str,
        tone=lambda _: "wait",
    )
    left = replay.step(
        "Giver",
        "looks at the balance",
        lambda: read_balance(client, pair),
        shown=_euros,
        tone=lambda left: "ok" if left == _START else "no",
    )
    return replay.lane(title), left


# What they share


def _accounts(bench: Bench, run: Run, name: str) -> tuple[Pair, Pair]:
    """A giver with money, and two takers without any."""
    giver = run.key(f"{name}-giver")
    with run.recording("Set up"):
        bench.client.set(giver, _START, px=_TTL_MS)
    return (
        Pair(giver, run.key(f"{name}-taker-1")),
        Pair(giver, run.key(f"{name}-taker-2")),
    )


def _both_look(
    bench: Bench, replay: Replay, open_looks: ExitStack, pairs: tuple[Pair, Pair]
) -> tuple[Look, Look]:
    """Each on a connection of its own, which watches the giver's key."""
    looks = [
        replay.step(
            f"Client {n}",
            "watches the balance and reads it",
            lambda pair=pair: open_looks.enter_context(  # type: ignore[misc]
                _TRANSFERS.look(bench.client, pair)
            ),
            shown=lambda look: _euros(look.balance),
        )
        for n, pair in enumerate(pairs, 1)
    ]
    return looks[0], looks[1]


def _move(replay: Replay, actor: str, look: Look, amount: int) -> None:
    replay.step(
        actor,
        f"moves {_euros(amount)}, if the balance is still the one it saw",
        lambda: look.move(amount),
        shown=lambda moved: "done" if moved else "EXEC answers nil: nothing is done",
        tone=lambda moved: "ok" if moved else "wait",
    )


def _count(bench: Bench, replay: Replay, pairs: tuple[Pair, Pair]) -> int:
    """All money there is, as the last step of the lane."""
    accounts = [pairs[0].giver, *(pair.taker for pair in pairs)]
    return replay.step(
        "Auditor",
        "counts all money",
        lambda: sum(map(int, filter(None, _mget(bench, accounts)))),
        shown=_euros,
        tone=lambda money: "ok" if money == _START else "no",
    )


def _mget(bench: Bench, names: list[str]) -> list[bytes | None]:
    found: list[bytes | None] = bench.client.mget(names)  # type: ignore[assignment]
    return found


def _money(side: str, money: int) -> Row:
    right = money == _START
    return Row(f"Money in all, {side}", _of(money, _START), "ok" if right else "no")


def _of(part: int, whole: int) -> str:
    return f"{_euros(part)} of {_euros(whole)}"


def _euros(amount: int) -> str:
    """80 -> '€ 80'; below 0 with a minus in front."""
    sign = "\u2212" if amount < 0 else ""
    return f"{sign}€\u00a0{abs(amount):,}"


def _told(moved: Moved) -> str:
    return f"{'moved' if moved.done else 'refused'}, {_euros(moved.left)} left"


EXPERIMENTS: tuple[Experiment, ...] = (
    Experiment(
        name="read-then-write",
        title="Read, then write",
        hypothesis="Two clients read one balance, and the later write wins.",
        controls=(),
        run=run_read_then_write,
        replayed=True,
    ),
    Experiment(
        name="no-look",
        title="MULTI without a look",
        hypothesis="What MULTI queues cannot see whether there is enough.",
        controls=(),
        run=run_no_look,
        replayed=True,
    ),
    Experiment(
        name="no-retry",
        title="WATCH without a retry",
        hypothesis="EXEC answers nil, nobody asks, and a transfer is gone.",
        controls=(),
        run=run_no_retry,
        replayed=True,
    ),
    Experiment(
        name="no-rollback",
        title="Trust MULTI to roll back",
        hypothesis="One command of a MULTI fails, and the others stand.",
        controls=(),
        run=run_no_rollback,
        replayed=True,
    ),
)
