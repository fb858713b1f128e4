"""Break the leaderboard: points lost to a second writer, and ranks that are counted."""

from statistics import median

import redis

from webapp.connection.budget import limited_to
from webapp.connection.recorder import Recording
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
)
from webapp.patterns.leaderboard import Entry, Leaderboard
from webapp.shop.scores import fill
from webapp.shop.scratch_scores import (
    page_by_offset,
    rank_by_count,
    scratch_scores,
)

_BOARD = Leaderboard(reach=0)
_SCRATCH_MS = 60_000
_FILL_S = 8.0  # Redis' time to fill a scratch board; the rest of a run has its own
_LOOKS = 5  # each is timed, and the median shown
_PAGE = 10
_DEPTH = 0.75  # how far down a page and a rank are asked for
_START, _FIRST, _SECOND = 100, 30, 50  # points


# Read, add, write back


def add_by_hand(client: redis.Redis, board: str, score: int, points: int) -> None:
    # Race: both clients read 100 (1, 2), the first writes 130 (3), and this line
    # writes 150 over it (4). The first client's 30 points never were.
    client.zadd(board, {"ada": score + points})


def add_on_the_server(client: redis.Redis, board: str, points: int) -> int:
    return int(client.zincrby(board, points, "ada") or 0)


def run_lost_points(bench: Bench) -> Outcome:
    with running(bench, "points") as run:
        broken_lane, broken = _race_by_hand(bench, run)
        fixed_lane, fixed = _race_on_the_server(bench, run)
    owed = _START + _FIRST + _SECOND
    return Outcome(
        rows=[
            Row("Points that were sent", f"{owed:,}", "ok"),
            Row("Score, ZSCORE and ZADD", f"{broken:,}", broken_lane.tone),
            Row("Score, ZINCRBY", f"{fixed:,}", fixed_lane.tone),
        ],
        summary=f"{owed - broken} of {owed} points are lost. "
        f"With ZINCRBY: {owed - fixed}.",
        tone="no" if broken != owed else "ok",
        verdict="points lost" if broken != owed else "exact",
        recordings=run.recordings,
        lanes=[broken_lane, fixed_lane],
    )


def _race_by_hand(bench: Bench, run: Run) -> tuple[Lane, int]:
    client, board, replay = bench.client, run.key("by-hand"), Replay(run)
    _seed(bench, board, replay)
    seen = {
        name: replay.step(name, "reads the score", lambda: _score(client, board))
        for name in ("Client A", "Client B")
    }
    for (name, score), points in zip(seen.items(), (_FIRST, _SECOND), strict=True):
        replay.step(
            name,
            f"writes {score} + {points}",
            lambda score=score, points=points: add_by_hand(  # type: ignore[misc]
                client, board, score, points
            ),
            tone=lambda _, name=name: "no" if name == "Client B" else "ok",  # type: ignore[misc]
        )
    return _ended(bench, board, replay, "Read, add, write back")


def _race_on_the_server(bench: Bench, run: Run) -> tuple[Lane, int]:
    """The same two clients; there is no time between read and write."""
    client, board, replay = bench.client, run.key("server"), Replay(run)
    _seed(bench, board, replay)
    for name, points in (("Client A", _FIRST), ("Client B", _SECOND)):
        replay.step(
            name,
            f"adds {points}",
            lambda points=points: add_on_the_server(client, board, points),  # type: ignore[misc]
        )
    return _ended(bench, board, replay, "Add on the server")


def _seed(bench: Bench, board: str, replay: Replay) -> None:
    def begin() -> None:
        with bench.client.pipeline(transaction=True) as pipeline:
            pipeline.zadd(board, {"ada": _START})
            pipeline.pexpire(board, _SCRATCH_MS)
            pipeline.execute()

    replay.step("Board", f"has ada at {_START}", begin, shown=lambda _: str(_START))


def _ended(bench: Bench, board: str, replay: Replay, title: str) -> tuple[Lane, int]:
    owed = _START + _FIRST + _SECOND
    score = replay.step(
        "Anyone",
        "reads the score",
        lambda: _score(bench.client, board),
        shown=lambda score: f"{score} of {owed}",
        tone=lambda score: "ok" if score == owed else "no",
    )
    return replay.lane(title), score


def _score(client: redis.Redis, board: str) -> int:
    return int(client.zscore(board, "ada") or 0)


# Count for a rank


def run_counted_rank(bench: Bench, *, players: int) -> Outcome:
    client, after = bench.client, round(players * _DEPTH)
    with running(bench, "rank") as run, scratch_scores(bench.engine, players) as sql:
        board = run.key("board")
        with run.recording(f"Fill {players:,} players") as filling, limited_to(_FILL_S):
            filling.see_inside = False  # thousands of arguments are no reading
            while fill(client, board, size=players, ttl_ms=_SCRATCH_MS) < players:
                pass
        with run.recording("Page and rank by SQL") as counted:
            rows = [page_by_offset(sql, after=after, limit=_PAGE) for _ in _looks()]
            name = rows[0][0][0]
            places = [rank_by_count(sql, player=name) for _ in _looks()]
        with run.recording("Page and rank by sorted set") as ranked:
            pages = [
                _BOARD.page(client, board, after=after, limit=_PAGE) for _ in _looks()
            ]
            ranks = [_rank(client, board, name) for _ in _looks()]
    same = _pairs(pages[0].entries) == rows[0] and ranks == places
    counted.verdict, ranked.verdict = ("no", "counted"), ("ok", "ranked")
    sql_us, redis_us = _times(counted, sql=True), _times(ranked, sql=False)
    return Outcome(
        rows=[
            *_compared(
                f"Page after {after:,}", sql_us[0], redis_us[0], "OFFSET", "ZRANGE"
            ),
            *_compared("Rank", sql_us[1], redis_us[1], "count(*)", "ZREVRANK"),
        ],
        summary=f"{players:,} players, {'the same' if same else 'different'} answers. "
        f"A rank takes {duration(sql_us[1])} by SQL, {duration(redis_us[1])} by Redis.",
        tone="no" if sql_us[1] > redis_us[1] else "ok",
        verdict="counted",
        recordings=run.recordings,
    )


def _looks() -> range:
    return range(_LOOKS)


def _rank(client: redis.Redis, board: str, player: str) -> int:
    standing = _BOARD.standing(client, board, player=player)
    return standing.entry.rank if standing else 0


def _pairs(entries: tuple[Entry, ...]) -> list[tuple[str, int]]:
    return [(entry.player, entry.score) for entry in entries]


def _times(own: Recording, *, sql: bool) -> tuple[int, int]:
    """The median µs of the pages, then of the ranks, as the tape has them."""
    us = [q.us for q in own.sql] if sql else [t.us - t.distance_us for t in own.trips]
    return round(median(us[:_LOOKS])), round(median(us[-_LOOKS:]))


def _compared(what: str, sql_us: int, redis_us: int, *sides: str) -> list[Row]:
    return compare(what, (sides[0], sides[1]), (sql_us, redis_us), shown=duration)


EXPERIMENTS: tuple[Experiment, ...] = (
    Experiment(
        name="lost-points",
        title="Read, add, write back",
        hypothesis="Two clients add to one score, and one client's points are lost.",
        controls=(),
        run=run_lost_points,
        replayed=True,
    ),
    Experiment(
        name="counted-rank",
        title="Count for a rank",
        hypothesis="SQL reads every row before the one it wants, for page and rank.",
        controls=(
            Control(
                "players",
                "Players",
                "range",
                min=20_000,
                max=200_000,
                step=20_000,
                value=200_000,
            ),
        ),
        run=run_counted_rank,
    ),
)
