"""What admins changed: a capped stream on the durable server, and a line in the log.

The line is written before the change. If it cannot be, there is no change.
"""

import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import redis

from webapp import keys

_MOST_ENTRIES = 1000
_LONGEST = 256  # characters of a field

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Entry:
    at: datetime
    who: str
    action: str  # "delete", "set TTL", "set maxmemory"
    target: str  # which keys, or which setting
    before: str = ""
    after: str = ""


def note(
    durable: redis.Redis,
    namespace: str,
    *,
    who: str,
    action: str,
    target: str,
    before: str = "",
    after: str = "",
) -> None:
    """Raises redis.RedisError."""
    fields = {"who": who, "action": action, "target": target}
    fields |= {"before": before, "after": after}
    entry = {name: text[:_LONGEST] for name, text in fields.items()}
    durable.xadd(_key(namespace), entry, maxlen=_MOST_ENTRIES)  # type: ignore[arg-type]
    log.warning("admin: %s", entry)


def latest(durable: redis.Redis, namespace: str, count: int = 10) -> list[Entry]:
    """The newest first (one round trip). Raises redis.RedisError."""
    found: Any = durable.xrevrange(_key(namespace), count=count)
    return [
        Entry(
            at=datetime.fromtimestamp(int(entry.split(b"-")[0]) / 1000, UTC),
            **{
                name: fields.get(name.encode(), b"").decode(errors="replace")
                for name in ("who", "action", "target", "before", "after")
            },
        )
        for entry, fields in found
    ]


def _key(namespace: str) -> str:
    return keys.key(namespace, keys.AUDIT, "log")
