"""The shop's users: registered by name and password. Guests have no row."""

import re
import secrets
import time
from functools import cache

import msgspec
from sqlalchemy import Engine
from werkzeug.security import check_password_hash, generate_password_hash

from webapp.shop.database import Secret, reading, run, writing

PASSWORD_LENGTH = (8, 128)  # shortest and longest
GUEST = "guest-"  # how the names of guests begin, and of nobody else
NAME_RULE = "3 to 32 of a-z, 0-9, - and _, beginning with a letter, not with guest-."
PASSWORD_RULE = f"{PASSWORD_LENGTH[0]} to {PASSWORD_LENGTH[1]} characters."

_NAME = re.compile(r"(?!guest-)[a-z][a-z0-9_-]{2,31}")


class User(msgspec.Struct, frozen=True):
    id: int
    name: str  # in lower case


def usable_name(name: str) -> bool:
    """Whether it keeps to NAME_RULE; case does not count."""
    return _NAME.fullmatch(name.lower()) is not None


def usable_password(password: str) -> bool:
    return PASSWORD_LENGTH[0] <= len(password) <= PASSWORD_LENGTH[1]


def guest_name() -> str:
    """A new name for a guest; 40 random bits, so that no two meet."""
    return f"{GUEST}{secrets.token_hex(5)}"


def register(engine: Engine, name: str, password: str) -> User | None:
    """Add a user. None: the name is taken. The rules are the caller's to check."""
    password_hash = Secret(generate_password_hash(password))
    with writing(engine) as connection:
        rows = run(
            connection,
            """INSERT INTO users (name, password_hash, created_at_ms)
               VALUES (:name, :password_hash, :now_ms)
               ON CONFLICT (name) DO NOTHING RETURNING id, name""",
            name=name.lower(),
            password_hash=password_hash,
            now_ms=time.time_ns() // 1_000_000,
        )
    return User(*rows[0]) if rows else None


def authenticate(engine: Engine, name: str, password: str) -> User | None:
    """The user of that name and password. An unknown name takes as long."""
    with reading(engine) as connection:
        rows = run(
            connection,
            "SELECT id, name, password_hash FROM users WHERE name = :name",
            name=name.lower(),
        )
    password_hash = rows[0].password_hash if rows else _nobodys_hash()
    right = check_password_hash(password_hash, password)
    return User(rows[0].id, rows[0].name) if rows and right else None


def set_password(engine: Engine, user_id: int, password: str) -> None:
    """The rules are the caller's to check."""
    password_hash = Secret(generate_password_hash(password))
    with writing(engine) as connection:
        run(
            connection,
            "UPDATE users SET password_hash = :password_hash WHERE id = :id",
            id=user_id,
            password_hash=password_hash,
        )


@cache
def _nobodys_hash() -> str:
    return generate_password_hash(secrets.token_urlsafe())
