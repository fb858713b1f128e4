"""The shop's boards: ISO weeks in UTC, quarters as seasons, and a crowd on demand."""

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta

import redis

from webapp import keys
from webapp.patterns.leaderboard import (
    Added,
    Leaderboard,
    Page,
    Refused,
    Standing,
    Week,
)
from webapp.scripts import load as load_script

_fill = load_script("leaderboard/fill")

GROUP = "season"  # all boards share a slot, so that they can be added up
CROWD = "crowd"  # the name of the board of made-up players
CROWD_SIZE = 1_000_000
_BATCH = 2500  # players a script call: the server is held up some milliseconds
_BATCHES = 8  # script calls a step
_WEEKS = 13  # of a quarter
_DAY = timedelta(days=1)
SAMPLES = (
    "Abel", "Bo", "Cleo", "Dag", "Edda", "Finn", "Greta", "Hugo", "Ines", "Jon",
    "Kira", "Leo", "Mara", "Nils", "Olga", "Pia", "Quinn", "Rosa", "Sven", "Tilda",
    "Udo", "Vera", "Wim", "Xenia", "Yara", "Zeno",
)  # fmt: skip


class Scores:
    """Points of players; boards are known by name: "2026-W47", "2026-Q4", "crowd"."""

    def __init__(
        self,
        client: redis.Redis,
        namespace: str,
        *,
        today: Callable[[], date] = lambda: datetime.now(UTC).date(),
    ) -> None:
        self.client = client
        self.leaderboard = Leaderboard()
        self._namespace = namespace
        self._today = today

    @property
    def week(self) -> str:
        """The running week's board."""
        return week_name(self._today())

    @property
    def last_week(self) -> str:
        return week_name(self._today() - timedelta(weeks=1))

    @property
    def season(self) -> str:
        return season_of(self._today())

    def exists(self, board: str) -> bool:
        """Whether there can be such a board; it may still be empty."""
        return board in (self.week, self.last_week, self.season, CROWD)

    def add(
        self, board: str, *, player: str, points: int, operation: str
    ) -> Added | Refused:
        """Add points to a week's board. Raises redis.RedisError, ValueError."""
        key = keys.key(self._namespace, keys.OPERATION, GROUP, operation)
        week = self._week(board)
        return self.leaderboard.add(
            self.client, week, key, player=player, points=points
        )

    def page(self, board: str, *, after: int, limit: int) -> Page:
        """The ranks after `after`; a season is added up first."""
        key = self.key(board)
        if board != self.season:
            return self.leaderboard.page(self.client, key, after=after, limit=limit)
        return self.leaderboard.season(
            self.client, key, parts=self.parts(), after=after, limit=limit
        )

    def standing(self, board: str, *, player: str) -> Standing | None:
        return self.leaderboard.standing(self.client, self.key(board), player=player)

    def key(self, board: str) -> str:
        """The sorted set of a board that exists."""
        if board == CROWD:
            return keys.key(self._namespace, keys.CROWD, GROUP)
        family = keys.SEASON if board == self.season else keys.WEEK
        return keys.key(self._namespace, family, GROUP, board)

    def parts(self) -> tuple[str, str]:
        """What the season adds up: its ended weeks, and the running one."""
        ended = keys.key(self._namespace, keys.ENDED, GROUP, self.season)
        return ended, self.key(self.week)

    def add_samples(self) -> None:
        """Give an empty board some players, and its season some ended weeks.

        Three round trips; the first points are added as anybody's are.
        """
        board, (ended, _) = self.week, self.parts()
        week = self._week(board)
        first, *more = SAMPLES
        self.add(board, player=first, points=40, operation=f"sample-{board}")
        with self.client.pipeline(transaction=True) as pipeline:
            this = {name: 20 + n * 37 % 400 for n, name in enumerate(more)}
            before = {name: 100 + n * 53 % 900 for n, name in enumerate(SAMPLES)}
            pipeline.zadd(week.board, this, nx=True)
            pipeline.zadd(ended, before, nx=True)
            pipeline.pexpireat(ended, _season_end_ms(self._today()))
            pipeline.execute()

    def fill_crowd(self) -> int:
        """Add the next made-up players, in a few steps; how many there are then."""
        for _ in range(_BATCHES):
            players_count = fill(
                self.client,
                self.key(CROWD),
                size=CROWD_SIZE,
                ttl_ms=keys.CROWD.ttl_ms or 0,
            )
            if players_count >= CROWD_SIZE:
                break
        return players_count

    def remove_crowd(self) -> None:
        self.client.unlink(self.key(CROWD))

    def _week(self, board: str) -> Week:
        year, number = int(board[:4]), int(board[6:])
        monday = date.fromisocalendar(year, number, 1)
        before = monday - timedelta(weeks=1)
        closes = monday + timedelta(weeks=1)
        return Week(
            board=self.key(board),
            last=self.key(week_name(before)),
            ended=keys.key(self._namespace, keys.ENDED, GROUP, season_of(before)),
            closes_ms=_ms(closes),
            expires_ms=_ms(closes + _DAY),
            ended_expires_ms=_season_end_ms(before),
        )


def fill(client: redis.Redis, board: str, *, size: int, ttl_ms: int) -> int:
    """Add the next made-up players, at most to `size`; how many there are then.

    One script, one round trip.
    """
    return int(_fill(client, [board], [_BATCH, size, ttl_ms]))


def week_name(day: date) -> str:
    """The board of the week in which the day is: "2026-W47"."""
    year, week, _ = day.isocalendar()
    return f"{year}-W{week:02}"


def season_of(day: date) -> str:
    year, week, _ = day.isocalendar()
    return f"{year}-Q{min((week - 1) // _WEEKS, 3) + 1}"


def _season_end_ms(day: date) -> int:
    """When a season's ended weeks expire: once the last of them has been added."""
    season = season_of(day)
    monday = day - timedelta(days=day.weekday())
    while season_of(monday) == season:
        monday += timedelta(weeks=1)
    return _ms(monday + timedelta(weeks=1) + _DAY)


def _ms(day: date) -> int:
    return round(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * 1000
