"""Where a command goes in a Cluster, and what several replies come to."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import redis
from redis.crc import key_slot
from redis.exceptions import ResponseError

from webapp.connection.topology import Topology

# Where the first key stands; for most commands it is the first argument.
_FIRST_KEY = {
    "EVAL": 3,
    "EVALSHA": 3,
    "MEMORY": 2,
    "OBJECT": 2,
    "XINFO": 2,
    "XGROUP": 2,
    "BITOP": 2,
    "ZUNION": 2,
    "ZINTER": 2,
    "ZDIFF": 2,
    "SINTERCARD": 2,
    "ZINTERCARD": 2,
    "LMPOP": 2,
    "ZMPOP": 2,
    "BLMPOP": 3,
    "BZMPOP": 3,
    "FCALL": 3,
    "PUBSUB": 2,  # a channel: subscribers are where a key of that name would be
}
_AFTER_STREAMS = {"XREAD", "XREADGROUP"}
_NO_KEY = {"CLIENT", "COMMAND", "CONFIG", "DBSIZE", "INFO", "LATENCY", "PING", "ROLE"}
_NO_KEY |= {"SCAN", "SCRIPT", "SLOWLOG", "TIME", "FLUSHALL", "FLUSHDB", "WAIT"}
_NO_KEY |= {"ACL", "CLUSTER", "DEBUG", "ECHO", "FUNCTION", "KEYS", "LASTSAVE"}
_ALL_PRIMARIES = {"SCRIPT", "PING", "INFO", "DBSIZE", "FLUSHALL", "FLUSHDB", "KEYS"}
CURSORS = 2**64 + 1  # how many there are, and one for a scan that has ended
_ADDED_UP = (
    "connected_clients",
    "used_memory",
    "maxmemory",
    "mem_not_counted_for_evict",
    "total_commands_processed",
    "keyspace_hits",
    "keyspace_misses",
    "evicted_keys",
    "expired_keys",
)


def slot_of(args: Sequence[Any]) -> int | None:
    """The slot of a command's first key; None: it has no key."""
    words = (*str(args[0]).upper().split(), *args[1:])
    if words[0] in _NO_KEY:
        return None
    if words[0] in _AFTER_STREAMS:
        at = [encoded(word).upper() for word in words].index(b"STREAMS") + 1
    else:
        at = _FIRST_KEY.get(words[0], 1)
    if words[0] in ("EVAL", "EVALSHA", "FCALL") and not int(words[2]):
        return None
    return key_slot(encoded(words[at])) if at < len(words) else None


def encoded(key: Any) -> bytes:
    return key if isinstance(key, bytes) else str(key).encode()


@dataclass(frozen=True)
class Plan:
    """What a command sends where, and what the replies come to."""

    sends: list[tuple[redis.Redis, tuple[Any, ...]]]
    join: Callable[[list[Any]], Any]


def _to(
    nodes: Iterable[redis.Redis],
    args: tuple[Any, ...],
    join: Callable[[list[Any]], Any] | None = None,
) -> Plan:
    return Plan([(node, args) for node in nodes], join or _first)


def _first(replies: list[Any]) -> Any:
    return replies[0]


def plan_of(
    topology: Topology, args: tuple[Any, ...], near: redis.Redis | None = None
) -> Plan:
    """Where a command goes. `near`: where one about the connection itself belongs."""
    slot = slot_of(args)
    if slot is not None:
        return _to([topology.owner(slot)], args)
    words = str(args[0]).upper().split()
    if words[0] in ("CLIENT", "WAIT") and near is not None:
        return _to([near], args)
    primaries = topology.primaries
    if words[0] == "SCAN":
        return _plan_of_scan(primaries, args)
    if " ".join(map(str, args[:2])).upper().startswith("CONFIG SET"):
        replicas = map(topology.node, topology.layout.replicas)
        return _to([*primaries, *replicas], args)
    if words[0] in _ALL_PRIMARIES:
        return _to(primaries, args, _JOINS.get(words[0]))
    return _to(primaries[:1], args)


def _plan_of_scan(primaries: Sequence[redis.Redis], args: tuple[Any, ...]) -> Plan:
    """A step on each primary that has not ended; the cursors make one number.

    Its digits, in base CURSORS, are one more than each primary's cursor, and 0 where
    it has ended. So 0 is the end of all, and by convention the beginning.
    """
    cursor = int(args[1])
    digits = [
        cursor // CURSORS**n % CURSORS if cursor else 1 for n in range(len(primaries))
    ]
    running = [n for n, digit in enumerate(digits) if digit]
    if cursor >= CURSORS ** len(primaries):
        raise ResponseError("invalid cursor")

    def join(replies: list[Any]) -> Any:
        after = {n: int(reply[0]) for n, reply in zip(running, replies, strict=True)}
        digits = ((at + 1) * CURSORS**n for n, at in after.items() if at)
        return sum(digits), [key for reply in replies for key in reply[1]]

    options = [*_with_shares(args[2:], len(running))]
    sends = [(primaries[n], ("SCAN", digits[n] - 1, *options)) for n in running]
    return Plan(sends, join)


def _with_shares(options: Sequence[Any], by: int) -> Iterator[Any]:
    """COUNT in equal parts, so that a step is as long as on one server."""
    for name, value in zip(options[::2], options[1::2], strict=True):
        yield name
        yield -(-int(value) // by) if encoded(name).upper() == b"COUNT" else value


def _join_info(replies: list[Any]) -> Any:
    """One server's facts, with totals of all; as text, if that is how they came."""
    if isinstance(replies[0], bytes):
        parsed = [_parse_info(reply) for reply in replies]
        return "\r\n".join(f"{k}:{v}" for k, v in _added_up(parsed).items()).encode()
    return _added_up(replies)


def _parse_info(text: bytes) -> dict[str, Any]:
    lines = (line for line in text.decode(errors="replace").splitlines() if ":" in line)
    return dict(line.split(":", 1) for line in lines)


def _added_up(infos: Sequence[dict[str, Any]]) -> dict[str, Any]:
    total = dict(infos[0])
    for name in _ADDED_UP:
        if name in total:
            total[name] = sum(int(info.get(name, 0)) for info in infos)
    databases = [info["db0"] for info in infos if "db0" in info]
    if databases:
        total["db0"] = _added_up_database(databases)
    if "run_id" in total:
        total["run_id"] = "+".join(sorted(str(info.get("run_id")) for info in infos))
    return total


def _added_up_database(databases: Sequence[Any]) -> Any:
    """`keys=12,expires=3,avg_ttl=0`, or the same as a dict."""
    if isinstance(databases[0], dict):
        return {
            name: sum(int(database.get(name, 0)) for database in databases)
            for name in databases[0]
        }
    parts = [dict(p.split("=") for p in text.split(",")) for text in databases]
    return ",".join(f"{k}={v}" for k, v in _added_up_database(parts).items())


_JOINS: dict[str, Callable[[list[Any]], Any]] = {
    "DBSIZE": sum,
    "INFO": _join_info,
    "KEYS": lambda replies: [key for reply in replies for key in reply],
}
