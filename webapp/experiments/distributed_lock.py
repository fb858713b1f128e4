"""Break the lock: a sale without one, and three ways to have one that holds nobody."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

import redis

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
    compare,
    duration,
    running,
    span,
)
from webapp.experiments.holder import Holder, Take, holder
from webapp.patterns.distributed_lock import DistributedLock, Lease, LockKeys
from webapp.scripts import load as load_script
from webapp.shop import reports

_sell = load_script("distributed_lock/sell")

_TTL_MS = 30_000  # of a scratch stock
_TILLS = 8
_BUYERS_PER_ITEM = 4
_RUSH_S = 5.0
_QUEUE_MS = 9_000  # for which a buyer waits for the lock
_BRIEF = DistributedLock(ttl_ms=60)  # a lease that ends while its holder works
_SHORT = DistributedLock(ttl_ms=400)
_LOCK = DistributedLock()

Buy = Callable[[Callable[[], None]], bool]  # told how to await the rush; was it sold


# A flash sale


def buy(client: redis.Redis, stock: str, rush: Callable[[], None]) -> bool:
    # Race: till 1 reads 500 (1), till 2 reads 500 (2), both sell an item and write
    # 499 (3): two are sold, and one is missing from the stock.
    left = int(client.get(stock) or 0)
    rush()
    if left < 1:
        return False
    client.set(stock, left - 1, px=_TTL_MS)
    return True


def buy_locked(client: redis.Redis, stock: str, names: LockKeys) -> bool:
    with _LOCK.holding(client, names, wait_ms=_QUEUE_MS):
        return buy(client, stock, lambda: None)


def buy_at_once(client: redis.Redis, stock: str) -> bool:
    return bool(_sell(client, [stock]))


@dataclass(frozen=True)
class Sale:
    sold: int
    us: int


def run_flash_sale(bench: Bench, *, buyers: int) -> Outcome:
    items, client = buyers // _BUYERS_PER_ITEM, bench.client
    with running(bench, "sale") as run:
        stocks = [run.key(name) for name in ("open", "locked", "at-once")]
        names = _names(run, "lock")
        ways: list[tuple[str, Buy]] = [
            ("no lock", lambda rush: buy(client, stocks[0], rush)),
            ("lock", lambda rush: buy_locked(client, stocks[1], names)),
            ("one script", lambda rush: buy_at_once(client, stocks[2])),
        ]
        sales = []
        for (title, way), stock in zip(ways, stocks, strict=True):
            with run.recording(f"Open the sale, {title}"):
                client.set(stock, items, px=_TTL_MS)
            sales.append(_hold(run, title, way, buyers))
    titles = [title for title, _ in ways]
    most_sold = max(sale.sold for sale in sales)
    longest = max(sale.us for sale in sales)
    rows = [
        Row(
            f"Sold of {items}, {title}",
            f"{sale.sold:,}",
            "ok" if sale.sold == items else "no",
            sale.sold / most_sold,
        )
        for title, sale in zip(titles, sales, strict=True)
    ]
    rows += [
        Row(f"Time, {title}", duration(sale.us), "ok", sale.us / longest)
        for title, sale in zip(titles, sales, strict=True)
    ]
    none, locked, script = sales
    over = none.sold - items
    return Outcome(
        rows=rows,
        summary=f"{buyers:,} buyers at {_TILLS} tills, {items} items. Without a lock "
        f"{none.sold:,} are sold, with it {locked.sold}. One script sells "
        f"{script.sold} in {duration(script.us)} instead of {duration(locked.us)}.",
        tone="no" if over else "ok",
        verdict=f"{over:,} oversold" if over else "sold out",
        recordings=run.recordings,
    )


def _hold(run: Run, title: str, way: Buy, buyers: int) -> Sale:
    """All buyers at the tills; on the tape is the first of the first till."""
    doors = threading.Barrier(_TILLS)

    def rush() -> None:
        with suppress(threading.BrokenBarrierError):
            doors.wait(_RUSH_S)

    def till(n: int) -> int:
        sold = 0
        for buyer in range(buyers // _TILLS):
            arrive = rush if buyer == 0 else lambda: None
            if n == buyer == 0:
                with run.recording(f"Buyer 1 of {buyers:,}, {title}"):
                    sold += way(arrive)
            else:
                sold += way(arrive)
        return sold

    began = time.perf_counter()
    with ThreadPoolExecutor(_TILLS) as pool:
        sold = sum(pool.map(till, range(_TILLS)))
    return Sale(sold, round((time.perf_counter() - began) * 1e6))


# Release another's lock


def release_by_name(client: redis.Redis, names: LockKeys, lease: Lease) -> bool:
    # Flaw: the lease of A has ended, and the lock that this deletes is B's.
    return bool(client.delete(names.lock))


def release_by_token(client: redis.Redis, names: LockKeys, lease: Lease) -> bool:
    return _LOCK.release(client, names, lease)


def run_release(bench: Bench) -> Outcome:
    with running(bench, "release") as run:
        by_name, broken = _release_late(bench, run, "DEL", release_by_name)
        by_token, fixed = _release_late(
            bench, run, "Compare and delete", release_by_token
        )
    return Outcome(
        rows=compare("Holders at once", ("DEL", "by token"), (broken, fixed)),
        summary=f"A's lease ends while it works, then A releases. With DEL {broken} "
        f"hold the lock at once, with the token {fixed}.",
        tone="no" if broken > 1 else "ok",
        verdict="two holders" if broken > 1 else "one holder",
        recordings=run.recordings,
        lanes=[by_name, by_token],
    )


def _release_late(
    bench: Bench,
    run: Run,
    title: str,
    release: Callable[[redis.Redis, LockKeys, Lease], bool],
) -> tuple[Lane, int]:
    """The lane, and how many held the lock at its end."""
    client, replay = bench.client, Replay(run)
    names = _names(run, title.lower().replace(" ", "-"))
    late = replay.step(
        "Worker A",
        f"takes the lock for {span(_BRIEF.ttl_ms)}",
        lambda: _BRIEF.acquire(client, names),
        shown=_number,
    )
    replay.step(
        "Worker A",
        "works on after its lease has ended",
        lambda: _outlive(client, names),
        shown=lambda ms: "no lock" if ms == -2 else f"{span(ms)} left",
    )
    replay.step(
        "Worker B", "takes it", lambda: _LOCK.acquire(client, names), shown=_number
    )
    if late is None:
        raise redis.ResponseError("a new lock was taken")
    replay.step(
        "Worker A",
        "is done, and releases",
        lambda: release(client, names, late),
        shown=lambda freed: "deleted B's lock" if freed else "not its own any more",
        tone=lambda freed: "no" if freed else "ok",
    )
    third = replay.step(
        "Worker C",
        "tries, while B works",
        lambda: _LOCK.acquire(client, names),
        shown=_number,
        tone=lambda lease: "no" if lease else "ok",
    )
    return replay.lane(title), 2 if third else 1


def _outlive(client: redis.Redis, names: LockKeys) -> int:
    """Wait for the end of the lease; what PTTL says then, -2: there is no lock."""
    left_ms = int(client.pttl(names.lock))
    time.sleep(max(left_ms + 5, 0) / 1000)
    return int(client.pttl(names.lock))


# A lock without a TTL


def run_no_ttl(bench: Bench, *, wait_ms: int) -> Outcome:
    with running(bench, "no-ttl") as run:
        forever, never = _kill_holder(bench, run, "SETNX", "setnx", wait_ms)
        leased, after = _kill_holder(bench, run, "SET NX PX", "acquire", wait_ms)
    return Outcome(
        rows=[
            Row("B after the kill, SETNX", _got(never), forever.tone),
            Row("B after the kill, SET NX PX", _got(after), leased.tone),
        ],
        summary=f"The holder's process is killed. Without a TTL B {_got(never)} in "
        f"{span(wait_ms)}, with one B {_got(after)}.",
        tone=forever.tone,
        verdict="locked for ever" if never is None else "taken over",
        recordings=run.recordings,
        lanes=[forever, leased],
    )


def _kill_holder(
    bench: Bench, run: Run, title: str, take: Take, wait_ms: int
) -> tuple[Lane, int | None]:
    """The lane, and the us until the next one had it; None: not in time."""
    client, names, replay = bench.client, _names(run, take), Replay(run)
    with holder(bench, names, take=take, ttl_ms=_SHORT.ttl_ms) as worker:
        replay.step(
            f"Worker A, process {worker.pid}",
            "takes the lock",
            worker.hear,
            shown=lambda fence: "taken" if fence else "not taken",
        )
        replay.step(
            "You", "send SIGKILL to its process", worker.kill, shown=lambda _: "killed"
        )
    began = time.perf_counter()
    lease = replay.step(
        "Worker B",
        f"waits for at most {span(wait_ms)}",
        lambda: _LOCK.wait(client, names, for_ms=wait_ms),
        shown=lambda lease: _number(lease) if lease else "not in time",
        tone=lambda lease: "ok" if lease else "no",
    )
    us = round((time.perf_counter() - began) * 1e6)
    return replay.lane(title), us if lease else None


def _got(us: int | None) -> str:
    return "never got it" if us is None else f"got it after {duration(us)}"


# A stopped holder


def run_stopped(bench: Bench) -> Outcome:
    with running(bench, "stopped") as run:
        open_lane, late = _stop_holder(bench, run, "No number", checked=False)
        fenced_lane, refused = _stop_holder(bench, run, "Number checked", checked=True)
    return Outcome(
        rows=[
            Row("The report is of, no number", f"worker {late}", open_lane.tone),
            Row(
                "The report is of, number checked",
                f"worker {refused}",
                fenced_lane.tone,
            ),
        ],
        summary="A's process is stopped past its lease, B writes, A goes on. Without "
        f"a check the report is {late}'s, with it {refused}'s.",
        tone=open_lane.tone,
        verdict="late write kept" if late == "A" else "late write refused",
        recordings=run.recordings,
        lanes=[open_lane, fenced_lane],
    )


def _stop_holder(
    bench: Bench, run: Run, title: str, *, checked: bool
) -> tuple[Lane, str]:
    """The lane, and who wrote the report that stays."""
    name = "checked" if checked else "unchecked"
    names, report, replay = _names(run, name), f"{run.id}-{name}", Replay(run)
    try:
        with holder(
            bench,
            names,
            take="acquire",
            ttl_ms=_SHORT.ttl_ms,
            report=report,
            checked=checked,
        ) as worker:
            _play(bench, replay, worker, names, report)
        writer = replay.step(
            "You",
            "look whose report it is",
            lambda: reports.find(bench.engine, report),
            shown=lambda found: f"worker {found.writer}'s" if found else "nobody's",
            tone=lambda found: "ok" if found and found.writer == "B" else "no",
        )
    finally:
        reports.drop(bench.engine, report)
    return replay.lane(title), writer.writer if writer else "nobody"


def _play(
    bench: Bench, replay: Replay, worker: Holder, names: LockKeys, report: str
) -> None:
    actor = f"Worker A, process {worker.pid}"
    replay.step(
        actor, f"takes the lock for {span(_SHORT.ttl_ms)}", worker.hear, shown=_short
    )
    replay.step(
        "You", "send SIGSTOP to its process", worker.stop, shown=lambda _: "stopped"
    )
    lease = replay.step(
        "Worker B",
        "waits until A's lease has ended",
        lambda: _LOCK.wait(bench.client, names, for_ms=5_000),
        shown=_number,
    )
    if lease is None:
        raise redis.TimeoutError("the lease of a stopped holder did not end")
    replay.step(
        "Worker B",
        "writes the report",
        lambda: reports.write(bench.engine, report, fence=lease.fence, writer="B"),
        shown=_written,
    )

    def wake() -> int:
        worker.go_on()
        return worker.hear()

    replay.step(
        actor,
        "gets SIGCONT, and writes as if nothing had been",
        wake,
        shown=_written,
        tone=lambda written: "no" if written else "ok",
    )


def _written(written: int) -> str:
    return "written" if written else "refused: a higher number has written"


def _number(lease: Lease | None) -> str:
    return _short(lease.fence) if lease else "taken by another"


def _short(fence: int) -> str:
    return f"number {fence}"


def _names(run: Run, name: str) -> LockKeys:
    wake = run.key(f"{name}-wake", keys.LOCKS_LAB_WAKE)
    return LockKeys(run.key(name), run.key(f"{name}-fence"), wake)


EXPERIMENTS: tuple[Experiment, ...] = (
    Experiment(
        name="flash-sale",
        title="Hold a flash sale",
        hypothesis="Tills that read the stock and then write it sell the same item "
        "twice. A lock prevents it. One script prevents it faster.",
        controls=(
            Control(
                "buyers", "Buyers", "range", min=400, max=2_000, step=400, value=2_000
            ),
        ),
        run=run_flash_sale,
    ),
    Experiment(
        name="release",
        title="Release another's lock",
        hypothesis="DEL frees whatever lock is there, also that of the next holder. "
        "Compare and delete frees only one's own.",
        controls=(),
        run=run_release,
        replayed=True,
    ),
)
# These start processes, which need a server that they can reach.
PROCESS_EXPERIMENTS: tuple[Experiment, ...] = (
    Experiment(
        name="no-ttl",
        title="Kill a holder",
        hypothesis="A lock without a TTL outlives its holder for ever. A lease ends.",
        controls=(
            Control(
                "wait_ms",
                "B waits",
                "range",
                min=600,
                max=2_000,
                step=200,
                value=800,
                unit="ms",
            ),
        ),
        run=run_no_ttl,
        replayed=True,
    ),
    Experiment(
        name="stopped",
        title="Stop a holder past its lease",
        hypothesis="A process that was stopped does not see its lease end, and writes "
        "over its successor. A resource that checks the number refuses it.",
        controls=(),
        run=run_stopped,
        replayed=True,
    ),
)
