"""A Cluster behind the interface of one server.

What differs in a Cluster is here, so that patterns and pages need not know of it. A
command goes to the node that owns the slot of its first key; whether the other keys
lie in the same slot, the server says. MOVED and ASK are followed, TRYAGAIN is tried
again, all within the request's time. A pipeline is split by nodes and sent to all of
them at once. SCAN walks all primaries at once, with one cursor.

redis-py's own RedisCluster is not used: it connects when it is made, sends whole
pipelines again after a lost reply, refuses EVAL in them, leaves the replies of MULTI
as they came, and raises what is no RedisError.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import redis
from redis.client import Pipeline, PubSub
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
from webapp.connection.breaker import Breaker
from webapp.connection.guarded import node_of, note_failure
from webapp.connection.routing import CURSORS, Plan, encoded, plan_of, slot_of
from webapp.connection.topology import Topology, close

T = TypeVar("T")

_MOST_REDIRECTS = 16
_TRY_AGAIN_S = 0.025


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

    def _asking(
        self, node: redis.Redis, args: tuple[Any, ...], options: dict[str, Any]
    ) -> Any:
        with node.pipeline(transaction=False) as pipeline:
            pipeline.command_stack += [(("ASKING",), {}), (args, options)]
            reply = pipeline.execute(raise_on_error=False)[1]
        if isinstance(reply, Exception):
            raise reply
        return reply


def cursor_bound(client: redis.Redis) -> int:
    """What every cursor of SCAN is below. Raises redis.ConnectionError."""
    if isinstance(client, ClusterClient):
        many: int = CURSORS ** len(client.topology.primaries)
        return many
    return 2**64


def _pause() -> None:
    """Keys of one command are on their way between two nodes."""
    began = time.perf_counter()
    time.sleep(_TRY_AGAIN_S)
    if (spent := budget.current()) is not None:
        spent.charge(began)
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
            return send(node, _let_in(node.connection_pool))

        return self._client.at(slot, send, send_asking)

    def _execute_everywhere(self) -> list[Any]:
        """One batch to each node, all of them sent before the first reply is read."""
        stack = self.command_stack
        near = next(
            (s for s in (slot_of(args) for args, _ in stack) if s is not None), None
        )
        home = None if near is None else self._client.topology.owner(near)
        plans = [plan_of(self._client.topology, args, home) for args, _ in stack]
        batches: _Batches = {}
        for n, plan in enumerate(plans):
            for place, (node, args) in enumerate(plan.sends):
                batches.setdefault(node, []).append(((n, place), args))
        answers = self._exchange(batches)
        return [
            self._joined(
                n, plan, [answers[n, place] for place in range(len(plan.sends))]
            )
            for n, plan in enumerate(plans)
        ]

    def _joined(self, n: int, plan: Plan, replies: list[Any]) -> Any:
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

    def _exchange(self, batches: "_Batches") -> dict[tuple[int, int], Any]:
        """The replies, by command and place in its plan."""
        answers: dict[tuple[int, int], Any] = {}
        open_: list[tuple[Any, Any, list[tuple[int, int]]]] = []
        try:
            for node, batch in batches.items():
                pool, commands = node.connection_pool, [args for _, args in batch]
                connection = _taken(pool, commands)
                open_.append((pool, connection, [place for place, _ in batch]))
                _send(pool, connection, commands, beside=len(open_) > 1)
            for pool, connection, places in open_:
                for n, place in places:
                    answers[n, place] = self._read(pool, connection, n)
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


# To each node: command and place in its plan, and what is sent there.
_Batches = dict[redis.Redis, list[tuple[tuple[int, int], tuple[Any, ...]]]]


def _let_in(pool: Any) -> Any:
    """A connection to a node that does not own the slot yet; it holds until EXEC."""
    connection = pool.get_connection()
    try:
        connection.send_command("ASKING")
        connection.read_response()
    except BaseException:
        connection.disconnect()
        pool.release(connection)
        raise
    return connection


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
                owner = self._client.topology.owner(key_slot(encoded(args[1])))
                self.connection_pool = owner.connection_pool
            super().execute_command(*args)  # type: ignore[no-untyped-call]
