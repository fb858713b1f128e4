"""Leaderboard: a sorted set that keeps every player ranked as scores change.

Problem: rank is a property of all rows, so a table has to count or sort to know one.
A sorted set keeps its members in order of score and answers a rank, a page at any
depth, or the players around one in logarithmic time. Adding points has two traps: a
score that is read, added to and written back loses points to a second writer, and an
increment that is sent again after a lost reply counts twice. ZINCRBY closes the
first, an operation id in the same script the second.

Keys
    board      zset, player -> points of one week. TTL: its week and a day, set by
               the week's first score.
    operation  string, "request score rank": what was answered. TTL `op_ttl_ms`.
    ended      zset, the season's ended weeks added up; the first score of a week adds
               the week before. TTL: its season and some days.
    season     zset, ended weeks and running week added up. TTL `season_ttl_ms`.
    All of them in one slot.

Commands (N players, M answered)
    add       1 round trip  EVALSHA add: GET, TIME, ZSCORE, ZINCRBY, PEXPIREAT,
                            ZREVRANK, SET, ZRANGE, O(log N + M)
    page      1 round trip  ZCARD, ZRANGE REV, O(log N + M) at any depth
    standing  1 round trip  EVALSHA standing: ZREVRANK, ZRANGE, O(log N + M)
    season    1 round trip  MULTI ZUNIONSTORE PEXPIRE ZCARD ZRANGE EXEC, O(N log N)

Guarantees: no points are lost or doubled, however many clients add and however often
they repeat an operation; a repeat answers what the first one did. Ties have one rule
everywhere: of equal scores, the name that is later in bytes is first, as REV sorts.
Rank and neighbours are of the same moment. Scores are whole and at most 2^53, where a
double is exact. A week takes no points after its end by the server's clock, and its
points reach the season once.

Limits: an operation repeated after `op_ttl_ms` counts again. Pages go by rank, so a
player who overtakes between two of them may be seen twice. The first score of a week
pays for adding the last one, O(N log N); a week that is followed by no score within a
day is lost to its season. A season's sums above 2^53 are rounded. Redis down: fails
closed; RedisError reaches the caller, who repeats the same operation later.

Source: https://redis.io/docs/latest/develop/data-types/sorted-sets/
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, Literal

import redis

from webapp.scripts import load as load_script

_add = load_script("leaderboard/add")
_standing = load_script("leaderboard/standing")

LARGEST = 2**53  # a score is a double, exact up to here


@dataclass(frozen=True)
class Week:
    """The keys of one week, in one slot, and its times in ms since 1970."""

    board: str  # "rpl:leaderboard:week:{season}:2026-W47"
    last: str  # "rpl:leaderboard:week:{season}:2026-W46"
    ended: str  # "rpl:leaderboard:ended:{season}:2026-Q4", of the last week's season
    closes_ms: int
    expires_ms: int  # of the board
    ended_expires_ms: int


@dataclass(frozen=True)
class Entry:
    player: str
    score: int  # 0 to 2^53
    rank: int  # from 1


@dataclass(frozen=True)
class Added:
    player: str
    score: int  # after this operation, also when it is repeated
    rank: int  # the same; `window` has where the player stands now
    repeated: bool  # the operation was known, and nothing was changed
    window: tuple[Entry, ...]  # the player and up to `reach` on each side
    top: tuple[Entry, ...]


@dataclass(frozen=True)
class Refused:
    """Nothing was changed."""

    reason: Literal["closed", "too large", "reused"]  # reused: another request's id


@dataclass(frozen=True)
class Standing:
    entry: Entry
    window: tuple[Entry, ...]  # the player and up to `reach` on each side

    @property
    def neighbours(self) -> tuple[Entry, ...]:
        return tuple(entry for entry in self.window if entry != self.entry)


@dataclass(frozen=True)
class Page:
    entries: tuple[Entry, ...]
    players_count: int  # on the whole board


@dataclass(frozen=True)
class Leaderboard:
    """What a board remembers and shows; times in ms."""

    op_ttl_ms: int = 86_400_000
    season_ttl_ms: int = 60_000
    reach: int = 3  # neighbours on each side
    top: int = 10

    def add(
        self,
        client: redis.Redis,
        week: Week,
        operation: str,
        *,
        player: str,
        points: int,
    ) -> Added | Refused:
        """Add points once for this operation key (one script, one round trip).

        Raises ValueError for points that are not a whole number from 0 to 2^53.
        """
        if type(points) is not int or not 0 <= points <= LARGEST:
            raise ValueError("points: a whole number from 0 to 2^53")
        request = f"{week.board.rpartition(':')[2]} {player} {points}"
        times = week.closes_ms, week.expires_ms, week.ended_expires_ms
        reply = _add(
            client,
            [week.board, operation, week.last, week.ended],
            [player, points, request, self.op_ttl_ms, *times, self.reach, self.top],
        )
        if reply[0] in (b"closed", b"too large"):
            return Refused(reply[0].decode())
        kept, added, first, window, top = reply
        asked, score, rank = kept.decode().rsplit(" ", 2)
        if asked != request:
            return Refused("reused")
        return Added(
            player,
            _whole(score),
            int(rank),
            repeated=not added,
            window=_entries(window, after=first),
            top=_entries(top, after=0),
        )

    def page(self, client: redis.Redis, board: str, *, after: int, limit: int) -> Page:
        """The ranks after `after`, at any depth (one pipeline, one round trip)."""
        pipeline = client.pipeline(transaction=False)
        _ask_page(pipeline, board, after, limit)
        return _page(pipeline.execute(), after)

    def standing(
        self, client: redis.Redis, board: str, *, player: str
    ) -> Standing | None:
        """Rank, score and neighbours, clamped at both ends; None: not on the board."""
        reply = _standing(client, [board], [player, self.reach])
        if not reply:
            return None
        rank, first, flat = reply
        window = _entries(flat, after=first)
        return Standing(window[rank - first], window)

    def season(
        self,
        client: redis.Redis,
        season: str,
        *,
        parts: Sequence[str],
        after: int,
        limit: int,
    ) -> Page:
        """Add the parts up under a key of their own, and read a page of the sum.

        One MULTI, one round trip.
        """
        pipeline = client.pipeline(transaction=True)
        pipeline.zunionstore(season, list(parts))
        pipeline.pexpire(season, self.season_ttl_ms)
        _ask_page(pipeline, season, after, limit)
        return _page(pipeline.execute()[2:], after)


def _ask_page(pipeline: Any, board: str, after: int, limit: int) -> None:
    pipeline.zcard(board)
    last = after + limit - 1
    # Not zrange(desc=True), which sends the deprecated ZREVRANGE.
    pipeline.execute_command(
        "ZRANGE", board, after, last, "REV", "WITHSCORES", withscores=True
    )


def _page(replies: Sequence[Any], after: int) -> Page:
    players_count, pairs = replies
    entries = (
        Entry(player.decode(), int(score), rank)
        for rank, (player, score) in enumerate(pairs, start=after + 1)
    )
    return Page(tuple(entries), int(players_count))


def _entries(flat: Sequence[bytes], *, after: int) -> tuple[Entry, ...]:
    """From [player, score, player, score, ...] as a script gets it."""
    pairs = zip(count(after + 1), flat[::2], flat[1::2], strict=False)
    return tuple(Entry(player.decode(), _whole(s), rank) for rank, player, s in pairs)


def _whole(score: str | bytes) -> int:
    """A double's text as an integer; some servers write 1e+15."""
    try:
        return int(score)
    except ValueError:
        return int(float(score))
