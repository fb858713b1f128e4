"""Break rate limits: what three common ways let through, and a retry that is exact."""

import contextvars
import threading
import time
from collections.abc import Callable

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
    Tone,
    compare,
    duration,
    running,
    span,
)
from webapp.patterns.rate_limiter import Decision
from webapp.patterns.rate_limiter.fixed_window import FixedWindow
from webapp.patterns.rate_limiter.sliding_window_log import SlidingWindowLog

_LIMIT = 3  # of the step by step runs
_WINDOW_MS = 400
_LONG_MS = 10_000  # a window that does not end during a run
_EARLY_MS = 40  # before it is time
_TRIES = 5


# INCR, then EXPIRE


def count_then_expire(
    client: redis.Redis, key: str, *, window_ms: int, dies: bool
) -> int:
    # Flaw: whoever ends between these two lines leaves a counter without a TTL. It is
    # not 1 any more, so nobody after them sets one, and it never falls again.
    asked = int(client.incr(key))
    if asked == 1 and not dies:
        client.pexpire(key, window_ms)
    return asked


def run_crash(bench: Bench) -> Outcome:
    with running(bench, "crash") as run:
        broken, stays = _crash_between(bench, run)
        fixed, left = _crash_healed(bench, run)
    return Outcome(
        rows=[
            Row("Expiry, INCR then EXPIRE", _expiry(stays), "no"),
            Row("Expiry, MULTI", _expiry(left), "ok"),
            Row("After the window, INCR then EXPIRE", broken.steps[-1].reply, "no"),
            Row("After the window, MULTI", fixed.steps[-1].reply, "ok"),
        ],
        summary="A counter without a TTL rejects its client for ever. "
        "PEXPIRE NX gives it one at the next request.",
        tone=broken.tone,
        verdict="blocked",
        recordings=run.recordings,
        lanes=[broken, fixed],
    )


def _crash_between(bench: Bench, run: Run) -> tuple[Lane, int]:
    """The lane, and what PTTL says in the end."""
    client, key, replay = bench.client, run.key("broken"), Replay(run)

    def count(*, dies: bool = False) -> int:
        return count_then_expire(client, key, window_ms=_WINDOW_MS, dies=dies)

    replay.step("Worker 1", "counts, and dies before EXPIRE", lambda: count(dies=True))
    for _ in range(_LIMIT - 1):
        replay.step("Worker 2", "counts a request", count)
    stays = replay.step("Worker 2", "asks when it ends", lambda: int(client.pttl(key)))
    time.sleep(_WINDOW_MS / 1000)
    replay.step(
        "Worker 2",
        "counts one after the window",
        count,
        shown=lambda asked: "admitted" if asked <= _LIMIT else f"rejected, {asked}",
        tone=lambda asked: "ok" if asked <= _LIMIT else "no",
    )
    return replay.lane("INCR, then EXPIRE"), stays


def _crash_healed(bench: Bench, run: Run) -> tuple[Lane, int]:
    """The same counter, left without a TTL, in the hands of the pattern."""
    client, key, replay = bench.client, run.key("fixed"), Replay(run)
    limit = FixedWindow(_LIMIT, _WINDOW_MS)
    replay.step(
        "Worker 1",
        "leaves a counter without a TTL",
        lambda: client.set(key, _LIMIT),
    )
    refused = replay.step(
        "Worker 2",
        "counts a request",
        lambda: limit.decide(client, key),
        shown=_said,
        tone=lambda _: "wait",
    )
    left = replay.step("Worker 2", "asks when it ends", lambda: int(client.pttl(key)))
    time.sleep(refused.retry_after_ms / 1000)
    replay.step(
        "Worker 2",
        "counts one after the window",
        lambda: limit.decide(client, key),
        shown=_said,
        tone=_tone,
    )
    return replay.lane("MULTI with PEXPIRE NX"), left


def _expiry(pttl: int) -> str:
    return "no expiry" if pttl == -1 else duration(max(pttl, 0) * 1000)


# GET, then SET


def read_then_write(
    client: redis.Redis, key: str, limit: int, meet: threading.Barrier
) -> bool:
    # Race: two callers read 9 of 10 (1, 2), both find room, both write 10 (3, 4).
    # Two requests passed, one was counted. `meet` is the moment between.
    asked = int(client.get(key) or 0)
    meet.wait()
    if asked >= limit:
        return False
    client.set(key, asked + 1, px=_LONG_MS)
    return True


def run_get_then_set(bench: Bench, *, callers: int, limit: int) -> Outcome:
    client, rounds = bench.client, 2 * limit // callers + 1
    with running(bench, "get-set") as run:
        key, meet = run.key("broken"), threading.Barrier(callers, timeout=1)
        with run.recording("GET, then SET") as apart:
            broken = _together(
                callers,
                rounds,
                lambda: read_then_write(client, key, limit, meet),
            )
        key = run.key("fixed")
        window = FixedWindow(limit, _LONG_MS)
        with run.recording("MULTI") as at_once:
            fixed = _together(
                callers, rounds, lambda: window.decide(client, key).allowed
            )
    asked = callers * rounds
    for own, admitted in ((apart, broken), (at_once, fixed)):
        own.verdict = ("no" if admitted > limit else "ok"), f"{admitted} of {limit}"
    return Outcome(
        rows=compare(
            "Admitted", ("GET then SET", "MULTI"), (broken, fixed), most=asked
        ),
        summary=f"{asked} requests of {callers} callers, a limit of {limit}. "
        f"GET then SET admits {broken}, MULTI {fixed}.",
        tone="no" if broken > limit else "ok",
        verdict="too many" if broken > limit else "exact",
        recordings=run.recordings,
    )


def _together(callers: int, rounds: int, ask: Callable[[], bool]) -> int:
    """How many of the callers' requests were admitted. Raises what a caller raised."""
    said: list[bool] = []
    failed: list[BaseException] = []

    def call() -> None:
        try:
            for _ in range(rounds):
                said.append(ask())
        except (redis.RedisError, threading.BrokenBarrierError) as error:
            failed.append(error)

    # Each with a copy of this context, so that its commands are on the same receipt.
    threads = [
        threading.Thread(target=contextvars.copy_context().run, args=(call,))
        for _ in range(callers)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise next((e for e in failed if isinstance(e, redis.RedisError)), failed[0])
    return sum(said)


# The client's clock


def decide_by_callers_clock(
    client: redis.Redis, key: str, *, limit: int, window_ms: int, now_ms: int, n: int
) -> bool:
    # Flaw: `now_ms` is the caller's. A caller whose clock is a window ahead removes
    # what all others did, and is removed by none of them.
    with client.pipeline(transaction=True) as multi:
        multi.zremrangebyscore(key, 0, now_ms - window_ms)
        multi.zcard(key)
        used = multi.execute()[1]
    if used >= limit:
        return False
    client.zadd(key, {f"{now_ms}-{n}": now_ms})
    client.pexpire(key, _LONG_MS)
    return True


def run_clock(bench: Bench, *, limit: int, ahead_s: int) -> Outcome:
    client, asked = bench.client, 2 * limit
    with running(bench, "clock") as run:
        key = run.key("broken", keys.LIMITS_LAB_LOG)
        own_ms = time.time_ns() // 1_000_000
        with run.recording("The callers' clocks") as skewed:
            broken = sum(
                decide_by_callers_clock(
                    client,
                    key,
                    limit=limit,
                    window_ms=_LONG_MS,
                    now_ms=own_ms + (ahead_s * 1000 if n >= limit else 0),
                    n=n,
                )
                for n in range(asked)
            )
        key = run.key("fixed", keys.LIMITS_LAB_LOG)
        log = SlidingWindowLog(limit, _LONG_MS)
        with run.recording("The server's clock") as served:
            fixed = sum(log.decide(client, key).allowed for _ in range(asked))
    for own, admitted in ((skewed, broken), (served, fixed)):
        own.verdict = ("no" if admitted > limit else "ok"), f"{admitted} of {limit}"
    return Outcome(
        rows=compare(
            "Admitted",
            ("callers' clocks", "server's clock"),
            (broken, fixed),
            most=asked,
        ),
        summary=f"Two callers, one {ahead_s} s ahead, a limit of {limit} in "
        f"{_LONG_MS // 1000} s. Their clocks admit {broken}, the server's {fixed}.",
        tone="no" if broken > limit else "ok",
        verdict="too many" if broken > limit else "exact",
        recordings=run.recordings,
    )


# Retry exactly when told


def run_retry(bench: Bench) -> Outcome:
    with running(bench, "retry") as run:
        lanes = [
            _retry(
                bench,
                run,
                "Fixed window",
                lambda n: run.key(f"window-{n}"),
                FixedWindow(_LIMIT, _WINDOW_MS),
            ),
            _retry(
                bench,
                run,
                "Sliding window log",
                lambda n: run.key(f"log-{n}", keys.LIMITS_LAB_LOG),
                SlidingWindowLog(_LIMIT, _WINDOW_MS),
            ),
        ]
    exact = all(lane.tone == "ok" for lane in lanes)
    return Outcome(
        rows=[
            Row(f"{lane.title}, {when}", step.reply, step.tone)
            for lane in lanes
            for when, step in (
                (f"{_EARLY_MS} ms early", lane.steps[-2]),
                ("exactly then", lane.steps[-1]),
            )
        ],
        summary="Asked a moment early, a request is refused. Asked when it was told "
        f"to, it {'passes' if exact else 'is refused too'}.",
        tone="ok" if exact else "no",
        verdict="exact" if exact else "not exact",
        recordings=run.recordings,
        lanes=lanes,
    )


def _retry(
    bench: Bench,
    run: Run,
    title: str,
    key: Callable[[int], str],
    limit: FixedWindow | SlidingWindowLog,
) -> Lane:
    """Once more, with another key, where a busy machine was late to ask early."""
    for n in range(_TRIES):
        replay = Replay(run)
        if _ask_early_and_then(bench, replay, key(n), limit):
            break
    return replay.lane(title)


def _ask_early_and_then(
    bench: Bench, replay: Replay, key: str, limit: FixedWindow | SlidingWindowLog
) -> bool:
    """Whether the early request was answered before its time had come."""

    def ask() -> Decision:
        return limit.decide(bench.client, key)

    for _ in range(_LIMIT):
        replay.step("Client", "asks", ask, shown=_said)
    asked = time.monotonic()
    refused = replay.step(
        "Client", "asks once more", ask, shown=_said, tone=lambda _: "wait"
    )
    told = time.monotonic() + refused.retry_after_ms / 1000
    _sleep_until(told - _EARLY_MS / 1000)
    replay.step(
        "Client",
        f"asks {_EARLY_MS} ms early",
        ask,
        shown=_said,
        tone=lambda said: "no" if said.allowed else "wait",
    )
    was_early = time.monotonic() < asked + refused.retry_after_ms / 1000
    _sleep_until(told)
    replay.step("Client", "asks exactly then", ask, shown=_said, tone=_tone)
    return was_early


def _sleep_until(moment: float) -> None:
    time.sleep(max(0.0, moment - time.monotonic()))


# What they share


def _said(decision: Decision) -> str:
    if decision.allowed:
        return "admitted"
    return f"rejected, retry in {span(decision.retry_after_ms)}"


def _tone(decision: Decision) -> Tone:
    return "ok" if decision.allowed else "no"


EXPERIMENTS: tuple[Experiment, ...] = (
    Experiment(
        name="get-then-set",
        title="Read the counter, then write it",
        hypothesis="Callers that read together all find room, and all pass.",
        controls=(
            Control("callers", "Callers", "range", min=2, max=10, step=1, value=8),
            Control("limit", "Limit", "range", min=5, max=20, step=5, value=10),
        ),
        run=run_get_then_set,
    ),
    Experiment(
        name="client-clock",
        title="Trust the callers' clocks",
        hypothesis="A caller whose clock is ahead removes what all others did.",
        controls=(
            Control("limit", "Limit", "range", min=5, max=20, step=5, value=10),
            Control(
                "ahead_s",
                "Clock ahead",
                "range",
                min=0,
                max=60,
                step=10,
                value=30,
                unit="s",
            ),
        ),
        run=run_clock,
    ),
    Experiment(
        name="crash",
        title="Die between INCR and EXPIRE",
        hypothesis="A counter without a TTL rejects its client for ever.",
        controls=(),
        run=run_crash,
        replayed=True,
    ),
    Experiment(
        name="retry",
        title="Retry exactly when told",
        hypothesis="A request passes at its retry-after, and not a moment before.",
        controls=(),
        run=run_retry,
        replayed=True,
    ),
)
