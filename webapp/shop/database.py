"""Opens the database, and runs every statement so that the tape can show it."""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from sqlalchemy import (
    Connection,
    Engine,
    QueuePool,
    Row,
    TextClause,
    bindparam,
    create_engine,
    event,
    make_url,
    text,
)

from webapp.connection import recorder


class Secret(str):
    """A value that is hidden where statements are shown."""


Value = int | str | None | tuple[int, ...]
Found = Row[*tuple[Any, ...]]

_KEPT = 16  # connections that stay open
_MOST = 64  # connections at once: one for each thread of a worker
_BUSY_MS = 5_000  # how long a writer waits for another one
_PARAMETER = re.compile(r"(?<!:):([a-z_]+)")
_BEGIN = "begin"  # execution option: how SQLite begins this connection's transactions


def open_database(url: str) -> Engine:
    """An engine for the database at a SQLAlchemy URL; makes the folder of a file.

    An engine must not be carried over a fork: each process opens its own.
    """
    parsed = make_url(url)
    pool: dict[str, Any] = {"pool_size": _KEPT, "max_overflow": _MOST - _KEPT}
    if parsed.get_backend_name() != "sqlite":
        return create_engine(parsed, pool_pre_ping=True, **pool)
    Path(parsed.database or "").parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # The driver would begin transactions in its own way; isolation_level=None
    # leaves that to us.
    driver = {"isolation_level": None, "timeout": _BUSY_MS / 1000}
    engine = create_engine(parsed, poolclass=QueuePool, connect_args=driver, **pool)
    event.listen(engine, "connect", _prepare)
    event.listen(engine, "begin", _begin)
    return engine


def _prepare(connection: Any, _record: object) -> None:
    for pragma in ("journal_mode = WAL", "synchronous = NORMAL", "foreign_keys = ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin(connection: Connection) -> None:
    how = connection.get_execution_options().get(_BEGIN, "DEFERRED")
    connection.exec_driver_sql(f"BEGIN {how}")


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """A read transaction: one snapshot that holds all commits so far."""
    with engine.connect() as connection, connection.begin():
        yield connection


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """A write transaction; commits at the end, rolls back if an exception leaves.

    It takes SQLite's write lock at once. A transaction that reads first and asks
    for the lock later fails if another writer committed in between.
    """
    connection = engine.connect().execution_options(**{_BEGIN: "IMMEDIATE"})
    with connection, connection.begin():
        yield connection


def run(connection: Connection, sql: str, **values: Value) -> list[Found]:
    """Run one statement and note it, with its time, for the tape.

    Returns its rows, none for a statement that returns none. A tuple stands for a
    list in parentheses, as in `id IN :ids`.
    """
    lists = tuple(name for name, value in values.items() if isinstance(value, tuple))
    statement = _parsed(sql, lists)
    started = time.perf_counter()
    plain = {n: str(v) if isinstance(v, Secret) else v for n, v in values.items()}
    result = connection.execute(statement, plain)
    rows = list(result) if result.returns_rows else []
    us = round((time.perf_counter() - started) * 1e6)
    if recorder.current() is not None:
        touched = len(rows) if result.returns_rows else result.rowcount
        recorder.note_sql(_filled(sql, values), rows=touched, us=us)
    return rows


@lru_cache(maxsize=256)
def _parsed(sql: str, lists: tuple[str, ...]) -> TextClause:
    return text(sql).bindparams(*(bindparam(name, expanding=True) for name in lists))


def _filled(sql: str, values: dict[str, Value]) -> str:
    """The statement for people to read, with its values in it. Never executed."""
    return _PARAMETER.sub(lambda match: _literal(values[match[1]]), sql)


def _literal(value: Value) -> str:
    match value:
        case None:
            return "NULL"
        case int():
            return str(value)
        case Secret():
            return f"'hidden {len(value)} B'"
        case str():
            return "'" + value.replace("'", "''") + "'"
        case tuple():
            return "(" + ", ".join(str(item) for item in value) + ")"
