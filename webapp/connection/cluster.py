"""A Cluster behind the interface of one server.

What differs in a Cluster is here, so that patterns and pages need not know of it. A
command goes to the node that owns the slot of its first key; whether the other keys
lie in the same slot, the server says. MOVED and ASK are followed, TRYAGAIN is tried
again, all within the request's time. A pipeline is split by nodes and sent to all of
them at once. SCAN walks one node after the other with one cursor.

redis-py's own RedisCluster is not used: it connects when it is made, sends whole
pipelines again after a lost reply, refuses EVAL in them, leaves the replies of MULTI
as they came, and raises what is no RedisError.
"""

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import redis
from redis.client import Pipeline, PubSub
from redis.crc import REDIS_CLUSTER_HASH_SLOTS as SLOTS
from redis.crc import key_slot
from redis.exceptions import (
    AskError,
    ClusterDownError,
    ConnectionError,
    MovedError,
    RedisError,
    ResponseError,
    TimeoutError,
    TryAgainError,
    WatchError,
)

from webapp.connection import budget, recorder
from webapp.connection.addresses import Address
from webapp.connection.breaker import Breaker
from webapp.connection.guarded import node_of, note_failure

T = TypeVar("T")

_MOST_REDIRECTS = 16
_TRY_AGAIN_S = 0.025
_REFRESH_EVERY_S = 0.25  # while nodes answer MOVED

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
    "PUBSUB": 2,  # a channel: subscribers are where a key of that name would be
}
_AFTER_STREAMS = {"XREAD", "XREADGROUP"}
_NO_KEY = {"CLIENT", "COMMAND", "CONFIG", "DBSIZE", "INFO", "LATENCY", "PING", "ROLE"}
_NO_KEY |= {"SCAN", "SCRIPT", "SLOWLOG", "TIME", "FLUSHALL", "FLUSHDB", "WAIT"}
_NO_KEY |= {"ACL", "CLUSTER", "DEBUG", "ECHO", "FUNCTION", "KEYS", "LASTSAVE"}
_ALL_PRIMARIES = {"SCRIPT", "PING", "INFO", "DBSIZE", "FLUSHALL", "FLUSHDB", "KEYS"}
_CURSORS = 2**64 + 1  # how many there are, and one for a scan that has ended
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
        at = [str(word).upper() for word in words].index("STREAMS") + 1
    else:
        at = _FIRST_KEY.get(words[0], 1)
    if words[0] in ("EVAL", "EVALSHA") and not int(words[2]):
        return None
    return key_slot(_bytes(words[at])) if at < len(words) else None


def _bytes(key: Any) -> bytes:
    return key if isinstance(key, bytes) else str(key).encode()


@dataclass(frozen=True)
class Layout:
    """Who owns which slot, as one node told it."""

    owners: list[Address | None]  # by slot
    primaries: tuple[Address, ...]  # by their lowest slot
    replicas: tuple[Address, ...]


class Topology:
    """The layout, and a client for each node."""

    def __init__(
        self, seeds: Sequence[Address], connect: Callable[[Address], redis.Redis]
    ) -> None:
        self._seeds = tuple(seeds)
        self._connect = connect
        self._nodes: dict[Address, redis.Redis] = {}
        self._layout: Layout | None = None
        self._learnt_at = 0.0
        self._lock = threading.Lock()  # of the dictionary above
        self._asking = threading.Lock()  # one thread at a time learns the layout

    @property
    def seed(self) -> redis.Redis:
        return self.node(self._seeds[0])

    @property
    def layout(self) -> Layout:
        """Asked for at first use. Raises redis.ConnectionError if no node answers."""
        return self._layout or self.refresh()

    @property
    def primaries(self) -> list[redis.Redis]:
        return [self.node(address) for address in self.layout.primaries]

    @property
    def known(self) -> list[redis.Redis]:
        """The clients that were made so far."""
        with self._lock:
            return list(self._nodes.values())

    def node(self, address: Address) -> redis.Redis:
        with self._lock:
            if address not in self._nodes:
                self._nodes[address] = self._connect(address)
            return self._nodes[address]

    def owner(self, slot: int) -> redis.Redis:
        address = self.layout.owners[slot]
        if address is None:
            raise ConnectionError(f"No node of the cluster serves slot {slot}")
        return self.node(address)

    def moved(self, error: MovedError) -> None:
        """Believe it, and ask for the whole layout if that was not done just now."""
        address: Address = error.node_addr
        self.layout.owners[error.slot_id] = address
        if time.monotonic() - self._learnt_at > _REFRESH_EVERY_S:
            self.refresh()

    def refresh(self) -> Layout:
        """Ask one node for the layout. Raises redis.ConnectionError if none answers."""
        before = self._layout
        with self._asking:
            if self._layout is not None and self._layout is not before:
                return self._layout  # another thread was faster
            self._layout = self._ask()
            self._learnt_at = time.monotonic()
            self._forget_others(self._layout)
            return self._layout

    def _ask(self) -> Layout:
        now = self._layout
        known = (*now.primaries, *now.replicas) if now else ()
        refusals: list[str] = []
        for address in dict.fromkeys((*known, *self._seeds)):
            try:
                reply: Any = self.node(address).execute_command("CLUSTER", "SLOTS")
                return _layout(reply, address)
            except RedisError as error:
                refusals.append(f"{address[0]}:{address[1]} {error}")
        raise ConnectionError(f"No node of the cluster answers: {'; '.join(refusals)}")

    def _forget_others(self, layout: Layout) -> None:
        kept = {*layout.primaries, *layout.replicas, *self._seeds}
        with self._lock:
            others = [self._nodes.pop(a) for a in self._nodes.keys() - kept]
        for node in others:
            close(node)


def close(node: redis.Redis) -> None:
    """Let a client of one node go, and its prober."""
    if breaker := getattr(node, "breaker", None):
        breaker.end()
    node.connection_pool.disconnect()


def _layout(reply: Sequence[Any], asked: Address) -> Layout:
    owners: list[Address | None] = [None] * SLOTS
    primaries: dict[Address, None] = {}
    replicas: dict[Address, None] = {}
    for first, last, primary, *others in sorted(reply, key=lambda part: part[0]):
        owner = _address(primary, asked)
        owners[first : last + 1] = [owner] * (last + 1 - first)
        primaries[owner] = None
        replicas.update((_address(other, asked), None) for other in others)
    return Layout(owners, tuple(primaries), tuple(replicas))


def _address(node: Sequence[Any], asked: Address) -> Address:
    """A node that does not know its own address is the one that was asked."""
    host = node[0].decode() if node[0] else ""
    return host or asked[0], int(node[1])


class ClusterBreaker(Breaker):
    """Of the role as a whole: open while any primary is away.

    It refuses nothing: each node has a breaker of its own for that, so the other
    slots are served. When all primaries answer again, a promoted replica among them,
    it makes good what was missed and has the new layout used.
    """

    def __init__(self, role: str, prober: redis.Redis, topology: Topology) -> None:
        super().__init__(role, prober)
        self._topology = topology

    def _is_back(self) -> bool:
        if not super()._is_back():
            return False
        try:
            self._topology.refresh()
        except RedisError:
            return False
        return True


@dataclass(frozen=True)
class _Plan:
    """What a command sends where, and what the replies come to."""

    sends: list[tuple[redis.Redis, tuple[Any, ...]]]
    join: Callable[[list[Any]], Any]


def _to(
    nodes: Iterable[redis.Redis],
    args: tuple[Any, ...],
    join: Callable[[list[Any]], Any] | None = None,
) -> _Plan:
    return _Plan([(node, args) for node in nodes], join or _first)


def _first(replies: list[Any]) -> Any:
    return replies[0]


class ClusterClient(redis.Redis):
    def __init__(self, topology: Topology, *, breaker: Breaker | None = None) -> None:
        super().__init__(connection_pool=topology.seed.connection_pool)
        self.topology = topology
        self.breaker = breaker

    def execute_command(self, *args: Any, **options: Any) -> Any:
        slot = slot_of(args)
        if slot is None:
            pipeline = self.pipeline(transaction=False)
            pipeline.command_stack.append((args, options))
            reply = pipeline.execute(raise_on_error=False)[0]
            if isinstance(reply, Exception):
                raise reply
            return reply
        return self.at(
            slot,
            lambda node: node.execute_command(*args, **options),
            lambda node: self._asking(node, args, options),
        )

    def at(
        self,
        slot: int,
        send: Callable[[redis.Redis], T],
        send_asking: Callable[[redis.Redis], T],
    ) -> T:
        """Send to the owner of a slot, and go where the nodes point to.

        Nothing that was carried out is sent again: a node that points elsewhere has
        done nothing.
        """
        asked: redis.Redis | None = None
        for _ in range(_MOST_REDIRECTS):
            try:
                with self.watched():
                    if asked is not None:
                        return send_asking(asked)
                    return send(self.topology.owner(slot))
            except MovedError as error:
                self.topology.moved(error)
                asked = None
            except AskError as error:
                asked = self.topology.node(error.node_addr)
            except TryAgainError:
                _pause()
                asked = None
            except ClusterDownError as error:
                raise ConnectionError(str(error)) from error
        raise ConnectionError(f"The nodes do not agree who serves slot {slot}")

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Tell the role's breaker when a node is away; without one, look around."""
        try:
            yield
        except (ConnectionError, TimeoutError) as error:
            nodes: list[Any] = self.topology.known
            if self.breaker is None:
                with suppress(RedisError):
                    self.topology.refresh()
            elif any(node.breaker.is_open for node in nodes):
                self.breaker.open(str(error))
            raise

    def pipeline(
        self, transaction: bool = True, shard_hint: str | None = None
    ) -> "ClusterPipeline":
        return ClusterPipeline(self, transaction)

    def pubsub(self, **options: Any) -> "ClusterPubSub":
        return ClusterPubSub(self, **options)

    def home(self, key: str) -> redis.Redis:
        """The client of the node that owns this key's slot."""
        return self.topology.owner(key_slot(key.encode()))

    def close(self) -> None:
        super().close()
        for node in self.topology.known:
            close(node)

    def plan(self, args: tuple[Any, ...], near: redis.Redis | None = None) -> _Plan:
        """`near`: where a command about the connection itself belongs."""
        slot = slot_of(args)
        if slot is not None:
            return _to([self.topology.owner(slot)], args)
        words = str(args[0]).upper().split()
        if words[0] in ("CLIENT", "WAIT") and near is not None:
            return _to([near], args)
        primaries = self.topology.primaries
        if words[0] == "SCAN":
            return _plan_of_scan(primaries, args)
        if " ".join(map(str, args[:2])).upper().startswith("CONFIG SET"):
            replicas = map(self.topology.node, self.topology.layout.replicas)
            return _to([*primaries, *replicas], args)
        if words[0] in _ALL_PRIMARIES:
            return _to(primaries, args, _JOINS.get(words[0]))
        return _to(primaries[:1], args)

    def _asking(
        self, node: redis.Redis, args: tuple[Any, ...], options: dict[str, Any]
    ) -> Any:
        with node.pipeline(transaction=False) as pipeline:
            pipeline.command_stack += [(("ASKING",), {}), (args, options)]
            reply = pipeline.execute(raise_on_error=False)[1]
        if isinstance(reply, Exception):
            raise reply
        return reply


def _plan_of_scan(primaries: Sequence[redis.Redis], args: tuple[Any, ...]) -> _Plan:
    """A step on each primary that has not ended; the cursors make one number.

    Its digits, in base _CURSORS, are one more than each primary's cursor, and 0 where
    it has ended. So 0 is the end of all, and by convention the beginning.
    """
    cursor = int(args[1])
    digits = [
        cursor // _CURSORS**n % _CURSORS if cursor else 1 for n in range(len(primaries))
    ]
    running = [n for n, digit in enumerate(digits) if digit]
    if cursor >= _CURSORS ** len(primaries):
        raise ResponseError("invalid cursor")

    def join(replies: list[Any]) -> Any:
        after = {n: int(reply[0]) for n, reply in zip(running, replies, strict=True)}
        digits = ((at + 1) * _CURSORS**n for n, at in after.items() if at)
        return sum(digits), [key for reply in replies for key in reply[1]]

    sends = [(primaries[n], ("SCAN", digits[n] - 1, *args[2:])) for n in running]
    return _Plan(sends, join)


def cursor_bound(client: redis.Redis) -> int:
    """What every cursor of SCAN is below. Raises redis.ConnectionError."""
    if isinstance(client, ClusterClient):
        many: int = _CURSORS ** len(client.topology.primaries)
        return many
    return 2**64


def _pause() -> None:
    """Keys of one command are on their way between two nodes."""
    time.sleep(_TRY_AGAIN_S)
    if (spent := budget.current()) is not None:
        spent.charge(_TRY_AGAIN_S)
        spent.require()


class ClusterPipeline(Pipeline):
    """MULTI on the node of its keys; other commands on all the nodes they need."""

    def __init__(self, client: ClusterClient, transaction: bool) -> None:
        pool = client.connection_pool
        super().__init__(pool, client.response_callbacks, transaction, None)
        self._client = client

    def immediate_execute_command(self, *args: Any, **options: Any) -> Any:
        """WATCH, and what is read after it."""
        slot = slot_of(args)
        if self.connection is not None or slot is None:
            return self._at_once(args, options)

        def send(node: redis.Redis) -> Any:
            self.reset()
            self.connection_pool = node.connection_pool
            return self._at_once(args, options)

        return self._client.at(slot, send, send)

    def _at_once(self, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        return super().immediate_execute_command(*args, **options)  # type: ignore[no-untyped-call]

    def execute(self, raise_on_error: bool = True) -> list[Any]:
        if self.connection is not None:
            return self._execute_watched(raise_on_error)
        try:
            if not self.command_stack:
                return []
            if self.transaction:  # type: ignore[truthy-function]
                return self._execute_multi(raise_on_error)
            with self._client.watched():
                replies = self._execute_everywhere()
            if raise_on_error:
                self.raise_first_error(self.command_stack, replies)
            return replies
        finally:
            self.reset()

    def _execute_watched(self, raise_on_error: bool) -> list[Any]:
        try:
            with self._client.watched():
                return super().execute(raise_on_error)
        except (ConnectionError, TimeoutError) as error:
            note_failure(self.connection_pool, error)
            raise
        except AskError as error:  # MOVED is one too
            raise WatchError(f"The slot has moved while it was watched: {error}") from (
                error
            )

    def _execute_multi(self, raise_on_error: bool) -> list[Any]:
        slots = (slot_of(args) for args, _ in self.command_stack)
        slot = next((slot for slot in slots if slot is not None), 0)

        def send(node: redis.Redis, connection: Any = None) -> list[Any]:
            with node.pipeline(transaction=True) as pipeline:
                pipeline.command_stack = list(self.command_stack)
                pipeline.connection = connection
                return pipeline.execute(raise_on_error)

        def send_asking(node: redis.Redis) -> list[Any]:
            connection = node.connection_pool.get_connection()
            connection.send_command("ASKING")  # it holds until EXEC
            connection.read_response()
            return send(node, connection)

        return self._client.at(slot, send, send_asking)

    def _execute_everywhere(self) -> list[Any]:
        """One batch to each node, all of them sent before the first reply is read."""
        stack = self.command_stack
        near = next(
            (s for s in (slot_of(args) for args, _ in stack) if s is not None), None
        )
        home = None if near is None else self._client.topology.owner(near)
        plans = [self._client.plan(args, home) for args, _ in stack]
        batches: dict[redis.Redis, list[tuple[int, tuple[Any, ...]]]] = {}
        for n, plan in enumerate(plans):
            for node, args in plan.sends:
                batches.setdefault(node, []).append((n, args))
        answers = self._exchange(batches)
        return [self._joined(n, plan, answers[n]) for n, plan in enumerate(plans)]

    def _joined(self, n: int, plan: _Plan, replies: list[Any]) -> Any:
        """What the replies come to; where they point elsewhere, it goes there."""
        error = next((r for r in replies if isinstance(r, Exception)), None)
        if error is None:
            return plan.join(replies)
        if isinstance(error, ClusterDownError):
            raise ConnectionError(str(error)) from error
        if not isinstance(error, AskError | TryAgainError):
            return error
        if isinstance(error, MovedError):
            self._client.topology.moved(error)
        args, options = self.command_stack[n]
        try:
            return self._client.execute_command(*args, **options)
        except ResponseError as refusal:
            return refusal

    def _exchange(
        self, batches: dict[redis.Redis, list[tuple[int, tuple[Any, ...]]]]
    ) -> dict[int, list[Any]]:
        """The replies to each command, in the order of its plan's nodes."""
        answers: dict[int, list[Any]] = {}
        open_: list[tuple[Any, Any, list[int]]] = []  # pool, connection, commands
        try:
            for node, batch in batches.items():
                pool, commands = node.connection_pool, [args for _, args in batch]
                connection = _taken(pool, commands)
                open_.append((pool, connection, [n for n, _ in batch]))
                _send(pool, connection, commands, beside=len(open_) > 1)
            for pool, connection, numbers in open_:
                for n in numbers:
                    answers.setdefault(n, []).append(self._read(pool, connection, n))
        except BaseException:
            for _, connection, _ in open_:
                connection.disconnect()  # replies may still be on their way
            raise
        finally:
            for pool, connection, _ in open_:
                pool.release(connection)
        return answers

    def _read(self, pool: Any, connection: Any, n: int) -> Any:
        args, options = self.command_stack[n]
        try:
            return self.parse_response(connection, args[0], **options)
        except ResponseError as error:
            return error
        except (ConnectionError, TimeoutError) as error:
            note_failure(pool, error)
            raise


def _taken(pool: Any, commands: Sequence[Sequence[Any]]) -> Any:
    try:
        return pool.get_connection()
    except (ConnectionError, TimeoutError) as error:
        for args in commands:
            recorder.note_unsent(node_of(pool), args, error)
        raise


def _send(
    pool: Any, connection: Any, commands: Sequence[Sequence[Any]], *, beside: bool
) -> None:
    try:
        connection.beside = beside
        connection.send_packed_command(connection.pack_commands(commands))
    except (ConnectionError, TimeoutError) as error:
        note_failure(pool, error)
        raise


class ClusterPubSub(PubSub):
    """Subscribes where a key of the channel's name would be: there it is counted too.

    Nodes pass messages on to each other, so any node would hear all of them.
    """

    def __init__(self, client: ClusterClient, **options: Any) -> None:
        super().__init__(client.connection_pool, **options)
        self._client = client

    def execute_command(self, *args: Any) -> None:
        with self._client.watched():
            if self.connection is None and len(args) > 1:
                owner = self._client.topology.owner(key_slot(_bytes(args[1])))
                self.connection_pool = owner.connection_pool
            super().execute_command(*args)  # type: ignore[no-untyped-call]


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
