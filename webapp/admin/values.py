"""The beginning of a value, without reading a large one and without touching it.

CLIENT NO-TOUCH keeps LRU and LFU figures as they are, where the server knows it. How
many elements are read follows from the memory and the length of the key, so that a
few large elements are not read at all.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import redis
from redis.exceptions import ResponseError

from webapp import keys
from webapp.admin.scan import Place, Row, rows

MOST_BYTES = 4096
_MOST_ELEMENTS = 50
_MOST_READ = 256 * 1024  # bytes that a read may bring, by estimate
_COMPACT = ("listpack", "ziplist", "intset")  # HSCAN and SSCAN return all of these
_LENGTHS = {
    "string": "STRLEN",
    "hash": "HLEN",
    "list": "LLEN",
    "set": "SCARD",
    "zset": "ZCARD",
    "stream": "XLEN",
}


@dataclass(frozen=True)
class Preview:
    length: int | None = None  # bytes of a string, else elements
    pairs: list[tuple[str, str]] = field(default_factory=list)  # label, value
    hidden: str = ""  # why nothing is shown
    cut: bool = False  # there is more
    touched: str = ""  # why the read counts for LRU and LFU; empty: it does not


@dataclass(frozen=True)
class Look:
    row: Row
    preview: Preview


def look(client: redis.Redis, place: Place, name: bytes) -> Look | None:
    """A key and the beginning of its value; None if there is no such key.

    Two round trips for a string, three for a collection: its length decides how
    much of it may be read.
    """
    found = rows(client, place, [name])
    if not found:
        return None
    row = found[0]
    if reason := _hidden(place, row):
        return Look(row, Preview(hidden=reason))
    return Look(row, _preview(client, row))


def _hidden(place: Place, row: Row) -> str:
    if not row.is_ours:
        return "Values of other apps on this server are not read."
    page = row.name.decode("utf-8", "replace").split(":")[1:2]
    secret = {f.page for f in keys.FAMILIES if f.secret}
    if row.family.secret if row.family else bool(secret.intersection(page)):
        return "A secret. It is not read, for admins neither."
    return "" if row.type in _LENGTHS else f"No preview of type {row.type}."


def _preview(client: redis.Redis, row: Row) -> Preview:
    name = row.name
    length: int | None = None
    if row.type != "string":
        length = int(client.execute_command(_LENGTHS[row.type], name))
        count = _elements(row, length)
        if not count:
            return Preview(length, hidden="Its elements are too large for a preview.")
    else:
        count = MOST_BYTES
    pipeline = client.pipeline(transaction=False)
    pipeline.execute_command("CLIENT NO-TOUCH", "ON")
    _READS[row.type](pipeline, name, count)
    if length is None:
        pipeline.strlen(name)
    pipeline.execute_command("CLIENT NO-TOUCH", "OFF")
    said, reply, *rest = pipeline.execute(raise_on_error=False)
    if isinstance(reply, Exception):
        return Preview(length, hidden="It changed while it was looked at.")
    length = rest[0] if length is None else length
    pairs, cut = _within(_PAIRS[row.type](reply))
    more = length > MOST_BYTES if row.type == "string" else length > len(pairs)
    touched = str(said) if isinstance(said, ResponseError) else ""
    return Preview(length, pairs, cut=cut or more, touched=touched)


def _elements(row: Row, length: int) -> int:
    """How many elements may be read; 0: not even a few."""
    if row.memory_bytes is None or not length:
        return 0 if length else 1
    each = row.memory_bytes / length
    count = max(1, min(_MOST_ELEMENTS, int(MOST_BYTES / each)))
    is_whole = row.encoding in _COMPACT and row.type in ("hash", "set")
    brought = row.memory_bytes if is_whole else count * each
    return count if brought <= _MOST_READ else 0


_READS: dict[str, Callable[[Any, bytes, int], Any]] = {
    "string": lambda p, name, n: p.getrange(name, 0, n - 1),
    "list": lambda p, name, n: p.lrange(name, 0, n - 1),
    "hash": lambda p, name, n: p.hscan(name, 0, count=n),
    "set": lambda p, name, n: p.sscan(name, 0, count=n),
    "zset": lambda p, name, n: p.zrange(name, 0, n - 1, withscores=True),
    "stream": lambda p, name, n: p.xrevrange(name, count=n),
}
_PAIRS: dict[str, Callable[[Any], list[tuple[Any, Any]]]] = {
    "string": lambda reply: [("", reply)],
    "list": lambda reply: list(enumerate(reply)),
    "hash": lambda reply: list(reply[1].items()),
    "set": lambda reply: [("", member) for member in reply[1]],
    "zset": lambda reply: [(score, member) for member, score in reply],
    "stream": lambda reply: [
        (entry, b", ".join(f + b" = " + v for f, v in (fields or {}).items()))
        for entry, fields in reply
    ],
}


def _within(pairs: list[tuple[Any, Any]]) -> tuple[list[tuple[str, str]], bool]:
    """The pairs as text, until 4 KB are full; and whether that was before the end."""
    shown: list[tuple[str, str]] = []
    left = MOST_BYTES
    for label, value in pairs:
        texts = [_text(part)[:left] for part in (label, value)]
        shown.append((texts[0], texts[1]))
        left -= sum(map(len, texts))
        if left <= 0:
            return shown, True
    return shown, False


def _text(value: Any) -> str:
    """Control characters and what is not UTF-8 as escapes."""
    if isinstance(value, float):
        return f"{value:g}"
    text = value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else ""
    text = text or ("" if isinstance(value, bytes) else str(value))
    return "".join(
        c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode()
        for c in text
    )
