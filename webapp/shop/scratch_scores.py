"""A table of made-up scores that lives as long as its connection: SQL beside a zset."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine

from webapp.shop.database import run


@contextmanager
def scratch_scores(engine: Engine, players: int) -> Iterator[Connection]:
    """The connection with `players` rows, as `lua/leaderboard/fill.lua` makes them.

    The table is temporary, and has the indexes that both queries want.
    """
    with engine.connect() as connection, connection.begin() as transaction:
        run(
            connection,
            """CREATE TEMPORARY TABLE scratch_score
               (player TEXT PRIMARY KEY, score INTEGER)""",
        )
        run(
            connection,
            """INSERT INTO scratch_score
               WITH RECURSIVE made (n) AS (
                 SELECT 1 UNION ALL SELECT n + 1 FROM made WHERE n < :players
               )
               SELECT 'player-' || substr(CAST(10000000 + n AS TEXT), 2),
                      n * 7919 % 100003
               FROM made""",
            players=players,
        )
        run(connection, "CREATE INDEX scratch_rank ON scratch_score (score, player)")
        yield connection
        transaction.rollback()


def page_by_offset(
    connection: Connection, *, after: int, limit: int
) -> list[tuple[str, int]]:
    """Players and scores below the first `after`."""
    rows = run(
        connection,
        """SELECT player, score FROM scratch_score
           ORDER BY score DESC, player DESC LIMIT :limit OFFSET :after""",
        after=after,
        limit=limit,
    )
    return [(row.player, row.score) for row in rows]


def rank_by_count(connection: Connection, *, player: str) -> int:
    """The player's rank from 1: how many are before it, and one."""
    rows = run(
        connection,
        """SELECT count(*) + 1 AS rank FROM scratch_score,
             (SELECT score AS own FROM scratch_score WHERE player = :player) AS me
           WHERE (scratch_score.score, scratch_score.player) > (own, :player)""",
        player=player,
    )
    return int(rows[0].rank)
