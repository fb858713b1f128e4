"""Which node of a Cluster serves which slots, and a client for each node."""

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import redis
from redis.crc import REDIS_CLUSTER_HASH_SLOTS as SLOTS
from redis.exceptions import ConnectionError, MovedError, RedisError

from webapp.connection.addresses import Address
from webapp.connection.breaker import Breaker

_REFRESH_EVERY_S = 0.25  # while nodes answer MOVED


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
            with suppress(ConnectionError):
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
