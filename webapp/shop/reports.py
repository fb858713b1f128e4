"""Reports that one worker at a time may write, each row with the number it was
written under. The check belongs here: only the resource sees every write."""

import msgspec
from sqlalchemy import Engine

from webapp.shop.database import reading, run, writing


class Report(msgspec.Struct, frozen=True):
    fence: int  # the highest number that wrote it
    writer: str
    writes: int


def write(engine: Engine, id: str, *, fence: int, writer: str) -> bool:
    """Write it, unless a higher number has; False: refused, and nothing changed."""
    with writing(engine) as connection:
        rows = run(
            connection,
            """INSERT INTO report (id, fence, writer, writes)
               VALUES (:id, :fence, :writer, 1)
               ON CONFLICT (id) DO UPDATE
                 SET fence = excluded.fence, writer = excluded.writer,
                     writes = report.writes + 1
                 WHERE report.fence <= excluded.fence
               RETURNING id""",
            id=id,
            fence=fence,
            writer=writer,
        )
    return bool(rows)


def write_unchecked(engine: Engine, id: str, *, fence: int, writer: str) -> bool:
    """The same without a look at the number, for Break it: the last write stays."""
    with writing(engine) as connection:
        rows = run(
            connection,
            """INSERT INTO report (id, fence, writer, writes)
               VALUES (:id, :fence, :writer, 1)
               ON CONFLICT (id) DO UPDATE
                 SET fence = excluded.fence, writer = excluded.writer,
                     writes = report.writes + 1
               RETURNING id""",
            id=id,
            fence=fence,
            writer=writer,
        )
    return bool(rows)


def find(engine: Engine, id: str) -> Report | None:
    with reading(engine) as connection:
        rows = run(
            connection,
            "SELECT fence, writer, writes FROM report WHERE id = :id",
            id=id,
        )
    return Report(*rows[0]) if rows else None


def drop(engine: Engine, id: str) -> None:
    with writing(engine) as connection:
        run(connection, "DELETE FROM report WHERE id = :id", id=id)
