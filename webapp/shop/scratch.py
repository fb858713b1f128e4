"""Rows that the experiments may break; no product is ever touched by one."""

from sqlalchemy import Engine

from webapp.shop.database import reading, run, writing


def put_scratch(engine: Engine, id: str, price_cents: int) -> None:
    """Make the row, or begin it anew, at version 1."""
    with writing(engine) as connection:
        run(
            connection,
            """INSERT INTO scratch (id, price_cents, version)
               VALUES (:id, :price_cents, 1)
               ON CONFLICT (id) DO UPDATE
                 SET price_cents = excluded.price_cents, version = 1""",
            id=id,
            price_cents=price_cents,
        )


def scratch_price(engine: Engine, id: str) -> int | None:
    """Its price in cents, None without the row."""
    with reading(engine) as connection:
        rows = run(connection, "SELECT price_cents FROM scratch WHERE id = :id", id=id)
    return int(rows[0].price_cents) if rows else None


def set_scratch_price(engine: Engine, id: str, price_cents: int) -> None:
    with writing(engine) as connection:
        run(
            connection,
            """UPDATE scratch SET price_cents = :price_cents, version = version + 1
               WHERE id = :id""",
            id=id,
            price_cents=price_cents,
        )


def drop_scratch(engine: Engine, id: str) -> None:
    with writing(engine) as connection:
        run(connection, "DELETE FROM scratch WHERE id = :id", id=id)


def set_scratch_price_recorded(engine: Engine, id: str, price_cents: int) -> None:
    """The same, with a record in the same transaction, as the outbox has it."""
    with writing(engine) as connection:
        run(
            connection,
            """UPDATE scratch SET price_cents = :price_cents, version = version + 1
               WHERE id = :id""",
            id=id,
            price_cents=price_cents,
        )
        run(
            connection,
            "INSERT INTO scratch (id, price_cents, version) VALUES (:record, 0, 0)",
            record=_record(id),
        )


def is_recorded(engine: Engine, id: str) -> bool:
    """Whether a writer left a record that nobody cleared."""
    return scratch_price(engine, _record(id)) is not None


def clear_record(engine: Engine, id: str) -> None:
    drop_scratch(engine, _record(id))


def scratch_row(engine: Engine, id: str) -> tuple[int, int]:
    """Price in cents and version. Raises IndexError without the row."""
    with reading(engine) as connection:
        rows = run(
            connection, "SELECT price_cents, version FROM scratch WHERE id = :id", id=id
        )
    return int(rows[0].price_cents), int(rows[0].version)


def _record(id: str) -> str:
    return f"{id}-record"
