"""The claims of the leaderboard, on fakeredis and on a real server."""

import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.exceptions import RedisError

from webapp import keys
from webapp.connection.recorder import Recording, recording, unrecorded
from webapp.patterns.leaderboard import (
    LARGEST,
    Added,
    Entry,
    Leaderboard,
    Refused,
    Week,
)

BOARD = Leaderboard()
HOUR_MS = 3_600_000


def board_key(week: str) -> str:
    return keys.key("rpl", keys.WEEK, "season", week)


def operation(name: str) -> str:
    return keys.key("rpl", keys.OPERATION, "season", name)


def make_week(
    *, name: str = "2026-W47", last: str = "2026-W46", ms: int = HOUR_MS
) -> Week:
    """A week that ends in so many ms."""
    closes_ms = round(time.time() * 1000) + ms
    return Week(
        board=board_key(name),
        last=board_key(last),
        ended=keys.key("rpl", keys.ENDED, "season", "2026-Q4"),
        closes_ms=closes_ms,
        expires_ms=closes_ms + 24 * HOUR_MS,
        ended_expires_ms=closes_ms + 48 * HOUR_MS,
    )


WEEK = make_week()


def add(
    client: redis.Redis, player: str, points: int, op: str, week: Week = WEEK
) -> Added:
    added = BOARD.add(client, week, operation(op), player=player, points=points)
    assert isinstance(added, Added)
    return added


def fill(client: redis.Redis, scores: dict[str, int]) -> None:
    for player, points in scores.items():
        add(client, player, points, f"fill-{player}")


# Adding points


def test_points_add_up(redis_client: redis.Redis) -> None:
    add(redis_client, "ada", 30, "a")
    assert add(redis_client, "ada", 12, "b").score == 42


def test_an_added_score_comes_with_rank_neighbours_and_top(
    redis_client: redis.Redis,
) -> None:
    fill(redis_client, {"bo": 50, "cleo": 20})
    added = add(redis_client, "ada", 30, "a")
    expected = (Entry("bo", 50, 1), Entry("ada", 30, 2), Entry("cleo", 20, 3))
    assert (added.rank, added.repeated) == (2, False)
    assert added.window == added.top == expected


def test_an_add_costs_one_round_trip(
    redis_client: redis.Redis, recorded: Recording
) -> None:
    add(redis_client, "ada", 30, "a")
    assert [len(trip.commands) for trip in recorded.trips] == [1]


def test_a_repeated_operation_changes_nothing_and_answers_the_same(
    redis_client: redis.Redis,
) -> None:
    first = add(redis_client, "ada", 30, "a")
    add(redis_client, "bo", 99, "b")
    add(redis_client, "ada", 5, "c")
    again = add(redis_client, "ada", 30, "a")
    assert (again.score, again.rank) == (first.score, first.rank) == (30, 1)
    assert again.repeated
    assert redis_client.zscore(WEEK.board, "ada") == 35


@pytest.mark.parametrize(("player", "points"), [("bo", 30), ("ada", 31)])
def test_an_operation_id_stands_for_one_request(
    redis_client: redis.Redis, player: str, points: int
) -> None:
    add(redis_client, "ada", 30, "a")
    other = BOARD.add(redis_client, WEEK, operation("a"), player=player, points=points)
    assert other == Refused("reused")
    assert redis_client.zrange(WEEK.board, 0, -1, withscores=True) == [(b"ada", 30)]


def test_an_operation_is_remembered_for_a_day(redis_client: redis.Redis) -> None:
    add(redis_client, "ada", 30, "a")
    assert 86_390_000 < redis_client.pttl(operation("a")) <= 86_400_000


@pytest.mark.parametrize(
    "points", [-1, LARGEST + 1, float("nan"), float("inf"), 1.5, True]
)
def test_points_that_are_no_whole_number_are_refused_before_redis(
    redis_client: redis.Redis, recorded: Recording, points: float
) -> None:
    with pytest.raises(ValueError, match="whole number"):
        BOARD.add(redis_client, WEEK, operation("a"), player="ada", points=points)  # type: ignore[arg-type]
    assert recorded.trips == []


def test_a_score_is_exact_up_to_2_53_and_goes_no_further(
    redis_client: redis.Redis,
) -> None:
    add(redis_client, "ada", LARGEST - 1, "a")
    assert add(redis_client, "ada", 1, "b").score == LARGEST
    more = BOARD.add(redis_client, WEEK, operation("c"), player="ada", points=1)
    assert more == Refused("too large")
    assert redis_client.zscore(WEEK.board, "ada") == LARGEST
    assert not redis_client.exists(operation("c"))


# Weeks and seasons


def test_the_first_score_gives_the_board_its_ttl(redis_client: redis.Redis) -> None:
    week = make_week()
    add(redis_client, "ada", 30, "a", week)
    left = redis_client.pttl(week.board)
    assert left == pytest.approx(25 * HOUR_MS, abs=60_000)


def test_a_week_that_is_over_takes_no_points(redis_client: redis.Redis) -> None:
    over = make_week(ms=-1000)
    refused = BOARD.add(redis_client, over, operation("a"), player="ada", points=1)
    assert refused == Refused("closed")
    assert redis_client.keys("*") == []


def test_an_operation_is_answered_the_same_after_the_week_is_over(
    redis_client: redis.Redis,
) -> None:
    add(redis_client, "ada", 30, "a")
    over = replace(WEEK, closes_ms=WEEK.closes_ms - 2 * HOUR_MS)
    assert add(redis_client, "ada", 30, "a", over).repeated


def test_the_first_score_of_a_week_adds_the_last_one_to_the_season_once(
    redis_client: redis.Redis,
) -> None:
    add(redis_client, "ada", 30, "a")
    after = make_week(name="2026-W48", last="2026-W47")
    add(redis_client, "bo", 5, "b", after)
    add(redis_client, "ada", 7, "c", after)
    assert redis_client.zrange(after.ended, 0, -1, withscores=True) == [(b"ada", 30)]
    third = make_week(name="2026-W49", last="2026-W48")
    add(redis_client, "bo", 1, "d", third)
    assert dict(redis_client.zrange(third.ended, 0, -1, withscores=True)) == {
        b"ada": 37, b"bo": 5,
    }  # fmt: skip
    assert redis_client.pttl(third.ended) > 0


def test_a_season_is_its_ended_weeks_and_the_running_one(
    redis_client: redis.Redis, recorded: Recording
) -> None:
    add(redis_client, "ada", 30, "a")
    week = make_week(name="2026-W48", last="2026-W47")
    add(redis_client, "bo", 35, "b", week)
    add(redis_client, "ada", 7, "c", week)
    recorded.trips.clear()
    key = keys.key("rpl", keys.SEASON, "season", "2026-Q4")
    page = BOARD.season(
        redis_client, key, parts=(week.ended, week.board), after=0, limit=10
    )
    assert page.entries == (Entry("ada", 37, 1), Entry("bo", 35, 2))
    assert len(recorded.trips) == 1


def test_a_season_without_scores_is_empty(redis_client: redis.Redis) -> None:
    key = keys.key("rpl", keys.SEASON, "season", "2026-Q4")
    parts = (WEEK.ended, WEEK.board)
    page = BOARD.season(redis_client, key, parts=parts, after=0, limit=10)
    assert (page.entries, page.players_count) == ((), 0)


# Pages and neighbours


def test_equal_scores_go_by_name_the_later_in_bytes_first(
    redis_client: redis.Redis,
) -> None:
    fill(redis_client, {"B": 5, "b": 5, "aa": 5, "a": 5, "z": 4})
    page = BOARD.page(redis_client, WEEK.board, after=0, limit=10)
    assert [e.player for e in page.entries] == ["b", "aa", "a", "B", "z"]


def test_a_page_costs_one_round_trip_at_any_depth(
    redis_client: redis.Redis, recorded: Recording
) -> None:
    fill(redis_client, {f"p{n:02}": n for n in range(30)})
    recorded.trips.clear()
    page = BOARD.page(redis_client, WEEK.board, after=20, limit=5)
    assert [e.rank for e in page.entries] == [21, 22, 23, 24, 25]
    assert page.players_count == 30
    assert len(recorded.trips) == 1


@pytest.mark.parametrize(
    ("player", "ranks"),
    [
        ("p9", [1, 2, 3, 4]),
        ("p8", [1, 2, 3, 4, 5]),
        ("p5", [2, 3, 4, 5, 6, 7, 8]),
        ("p0", [7, 8, 9, 10]),
    ],
)
def test_neighbours_end_where_the_board_ends(
    redis_client: redis.Redis, player: str, ranks: list[int]
) -> None:
    fill(redis_client, {f"p{n}": n for n in range(10)})
    standing = BOARD.standing(redis_client, WEEK.board, player=player)
    assert standing is not None
    assert [e.rank for e in standing.window] == ranks
    assert standing.entry.player == player
    assert player not in [e.player for e in standing.neighbours]


def test_a_standing_costs_one_round_trip(
    redis_client: redis.Redis, recorded: Recording
) -> None:
    fill(redis_client, {"ada": 1, "bo": 2})
    recorded.trips.clear()
    BOARD.standing(redis_client, WEEK.board, player="ada")
    assert [len(trip.commands) for trip in recorded.trips] == [1]


def test_who_is_not_on_the_board_has_no_standing(redis_client: redis.Redis) -> None:
    assert BOARD.standing(redis_client, WEEK.board, player="ada") is None


def test_without_redis_nothing_is_answered(redis_down: redis.Redis) -> None:
    with pytest.raises(RedisError):
        BOARD.add(redis_down, WEEK, operation("a"), player="ada", points=1)
    with pytest.raises(RedisError):
        BOARD.page(redis_down, WEEK.board, after=0, limit=10)
    with pytest.raises(RedisError):
        BOARD.standing(redis_down, WEEK.board, player="ada")


# FAULTS K1: a model; 25,000 steps behind `slow`, fewer in `make test`

PLAYERS = st.text("ABab01-_", min_size=1, max_size=3).map(lambda tail: f"p{tail}")
POINTS = st.one_of(st.integers(0, 3), st.integers(0, LARGEST))
STEP = st.tuples(PLAYERS, POINTS, st.integers(0, 40))
STEPS = st.lists(STEP, min_size=1, max_size=25)
HEALTH = [HealthCheck.function_scoped_fixture]


class Model:
    """What a board must be: scores in a dict, ranks by sorting it."""

    def __init__(self) -> None:
        self.scores: dict[str, int] = {}
        self.done: dict[int, tuple[str, int, int, int]] = {}

    def ranked(self) -> list[Entry]:
        order = sorted(
            self.scores.items(), key=lambda pair: (pair[1], pair[0].encode())
        )
        return [Entry(p, s, rank) for rank, (p, s) in enumerate(order[::-1], start=1)]

    def add(self, player: str, points: int, op: int) -> Refused | tuple[int, int]:
        if op in self.done:
            asked, said = self.done[op][:2], self.done[op][2:]
            return said if asked == (player, points) else Refused("reused")
        if self.scores.get(player, 0) + points > LARGEST:
            return Refused("too large")
        self.scores[player] = self.scores.get(player, 0) + points
        rank = next(e.rank for e in self.ranked() if e.player == player)
        self.done[op] = player, points, self.scores[player], rank
        return self.scores[player], rank


def agrees(client: redis.Redis, steps: list[tuple[str, int, int]]) -> None:
    with unrecorded():
        client.flushall()
        model = Model()
        for player, points, op in steps:
            key = operation(str(op))
            added = BOARD.add(client, WEEK, key, player=player, points=points)
            said = added if isinstance(added, Refused) else (added.score, added.rank)
            assert said == model.add(player, points, op)
            _same_everywhere(client, model.ranked(), player)


def _same_everywhere(client: redis.Redis, ranked: list[Entry], player: str) -> None:
    pages: list[Entry] = []
    while batch := BOARD.page(client, WEEK.board, after=len(pages), limit=4).entries:
        pages += batch
    assert pages == ranked
    standing = BOARD.standing(client, WEEK.board, player=player)
    mine = next((e for e in ranked if e.player == player), None)
    if mine is None:
        assert standing is None
        return
    assert standing is not None
    first = max(mine.rank - 1 - BOARD.reach, 0)
    assert standing.entry == mine
    assert list(standing.window) == ranked[first : mine.rank + BOARD.reach]


@settings(max_examples=30, deadline=None, suppress_health_check=HEALTH)
@given(steps=STEPS)
def test_k1_board_pages_and_neighbours_are_those_of_a_model(
    redis_client: redis.Redis, steps: list[tuple[str, int, int]]
) -> None:
    agrees(redis_client, steps)


@pytest.mark.slow
@pytest.mark.timeout(600)
@settings(max_examples=2000, deadline=None, suppress_health_check=HEALTH)
@given(steps=STEPS)
def test_k1_the_model_agrees_for_25_000_steps(
    server_client: redis.Redis, steps: list[tuple[str, int, int]]
) -> None:
    agrees(server_client, steps)


# Many clients


@pytest.fixture
def four() -> Iterator[list[threading.Thread]]:
    threads: list[threading.Thread] = []
    yield threads
    for thread in threads:
        thread.join(10)


def test_no_point_is_lost_or_doubled_by_clients_that_repeat(
    server_client: redis.Redis, four: list[threading.Thread]
) -> None:
    def work(offset: int) -> None:
        with recording(Recording("thread")):
            for n in range(100):
                for _ in range(2):  # each operation is sent twice, by two threads
                    add(server_client, "ada", 1, f"op-{(offset % 2) * 100 + n}")

    four += [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in four:
        thread.start()
    for thread in four:
        thread.join(10)
    assert server_client.zscore(WEEK.board, "ada") == 200
