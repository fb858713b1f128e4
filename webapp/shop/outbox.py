"""Cached products that must still be invalidated, kept beside the data itself.

A record is written in the transaction of the edit, so there is none without the
other, and is cleared when Redis has confirmed. What a crash or an outage leaves
is replayed later; to invalidate once too often is harmless.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Sequence

import msgspec
from sqlalchemy import Connection, Engine

from webapp.shop.database import reading, run, writing


class Entry(msgspec.Struct, frozen=True):
    id: int  # never used again
    product_id: int
    created_at_ms: int


def record(connection: Connection, product_id: int) -> int:
    """Add a record within the transaction of an edit; returns its id."""
    rows = run(
        connection,
        """INSERT INTO outbox (product_id, created_at_ms)
           VALUES (:product_id, :now_ms) RETURNING id""",
        product_id=product_id,
        now_ms=time.time_ns() // 1_000_000,
    )
    return int(rows[0].id)


def pending(engine: Engine) -> list[Entry]:
    """All records, oldest first."""
    with reading(engine) as connection:
        rows = run(
            connection, "SELECT id, product_id, created_at_ms FROM outbox ORDER BY id"
        )
    return [Entry(*row) for row in rows]


def clear(engine: Engine, ids: Sequence[int]) -> None:
    """Remove records that Redis has confirmed; ids that are gone do not matter."""
    if ids:
        with writing(engine) as connection:
            run(connection, "DELETE FROM outbox WHERE id IN :ids", ids=tuple(ids))


def replay(engine: Engine, invalidate: Callable[[int], None]) -> int:
    """Invalidate all products with records, and clear these; returns the products.

    Several processes may do so at once. If `invalidate` raises, the exception
    leaves and the records of that product and of those after it stay.
    """
    waiting: defaultdict[int, list[int]] = defaultdict(list)
    for entry in pending(engine):
        waiting[entry.product_id].append(entry.id)
    for product_id, ids in waiting.items():
        invalidate(product_id)
        clear(engine, ids)
    return len(waiting)
