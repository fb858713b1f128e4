"""Which servers a set has, who follows whom, and how far each has got."""

from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Any, Literal

import msgspec
import redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from webapp.connection import addresses
from webapp.connection.addresses import Address, SetUrl

_TIMEOUT_S = 0.25


class Node(msgspec.Struct, frozen=True, kw_only=True):
    address: str  # "127.0.0.1:7001"
    role: Literal["primary", "replica", "sentinel"]
    up: bool
    follows: str = ""  # the address of a replica's primary
    offset: int | None = None  # bytes of replication that it has
    behind: int | None = None  # bytes that its primary is ahead
    slots: list[tuple[int, int]] = []  # first and last, of a Cluster's primary

    @property
    def slots_count(self) -> int:
        return sum(last - first + 1 for first, last in self.slots)


class NodeMap(msgspec.Struct, frozen=True, kw_only=True):
    """A set, primaries before their replicas, sentinels last."""

    kind: Literal["sentinel", "cluster"]
    roles: list[str]  # that it serves
    nodes: list[Node]


def mappers(urls: Mapping[Any, str]) -> list["Mapper"]:
    """One for each set behind the URLs of the roles."""
    sets = dict.fromkeys(url for url in urls.values() if addresses.is_set(url))
    return [
        Mapper(addresses.parse(url), [role for role in urls if urls[role] == url])
        for url in sets
    ]


class Mapper:
    """Asks a set about itself; remembers nodes that were there."""

    def __init__(self, at: SetUrl, roles: Sequence[str]) -> None:
        self._at = at
        self._roles = list(roles)
        self._known: dict[Address, Node] = {}

    def look(self) -> NodeMap:
        """As it is now; a node that does not answer is down."""
        told = self._of_cluster() if self._at.kind == "cluster" else self._of_set()
        self._known |= {_split(node.address): node for node in told}
        seen = [self._asked(node) for node in self._known.values()]
        if self._at.kind == "sentinel" and told:
            seen = one_primary(seen, named=told[0].address)
        return NodeMap(kind=self._at.kind, roles=self._roles, nodes=_ordered(seen))

    def _of_set(self) -> list[Node]:
        for address in self._at.addresses:
            try:
                with closing(self._client(address, data=False)) as client:
                    return _told_by_sentinel(client, self._at)
            except RedisError:
                continue
        return []

    def _of_cluster(self) -> list[Node]:
        for address in dict.fromkeys((*self._known, *self._at.addresses)):
            try:
                with closing(self._client(address)) as client:
                    told: Any = client.execute_command("CLUSTER NODES")
            except RedisError:
                continue
            self._known = {}  # nodes that the cluster has forgotten are gone
            return _told_by_node(told)
        return []

    def _asked(self, node: Node) -> Node:
        """With what the node says of itself."""
        data = node.role != "sentinel"
        try:
            with closing(self._client(_split(node.address), data=data)) as client:
                if not data:
                    return msgspec.structs.replace(node, up=bool(client.ping()))
                info: Any = client.info("replication")
        except RedisError:
            return msgspec.structs.replace(node, up=False, offset=None)
        own: dict[str, Any]
        if info["role"] == "master":
            own = {"role": "primary", "follows": ""}
            own["offset"] = int(info["master_repl_offset"])
        else:
            own = {"role": "replica", "slots": []}
            own["follows"] = f"{info['master_host']}:{info['master_port']}"
            own["offset"] = int(info["slave_repl_offset"])
        return msgspec.structs.replace(node, up=True, **own)

    def _client(self, address: Address, *, data: bool = True) -> redis.Redis:
        """The password is for those with data, as in the client's own URL."""
        return redis.Redis(
            *address,
            username=self._at.username if data else None,
            password=self._at.password if data else None,
            socket_timeout=_TIMEOUT_S,
            socket_connect_timeout=_TIMEOUT_S,
            retry=Retry(NoBackoff(), 0),
            driver_info=None,
        )


def one_primary(nodes: Sequence[Node], *, named: str) -> list[Node]:
    """As clients take them: beside a primary that sentinels name there is no other.

    One that was killed and is back takes itself for one until they have told it.
    """
    reigns = any(n.address == named and n.role == "primary" and n.up for n in nodes)
    if not reigns:
        return list(nodes)
    return [
        msgspec.structs.replace(node, role="replica")
        if node.role == "primary" and node.address != named
        else node
        for node in nodes
    ]


def _told_by_sentinel(client: redis.Redis, at: SetUrl) -> list[Node]:
    primary: Any = client.sentinel_master(at.service)
    replicas: Any = client.sentinel_slaves(at.service)
    first = f"{primary['ip']}:{primary['port']}"
    nodes = [Node(address=first, role="primary", up=True)]
    nodes += [
        Node(address=f"{r['ip']}:{r['port']}", role="replica", up=True, follows=first)
        for r in replicas
    ]
    watching = (f"{host}:{port}" for host, port in at.addresses)
    return [*nodes, *(Node(address=a, role="sentinel", up=True) for a in watching)]


def _told_by_node(told: Mapping[str, Mapping[str, Any]]) -> list[Node]:
    by_id = {facts["node_id"]: address for address, facts in told.items()}
    return [
        Node(
            address=address,
            role="primary" if "master" in facts["flags"] else "replica",
            up=True,
            follows=by_id.get(facts["master_id"], ""),
            slots=[(int(part[0]), int(part[-1])) for part in facts["slots"]],
        )
        for address, facts in told.items()
        if "noaddr" not in facts["flags"]
    ]


def _ordered(nodes: Sequence[Node]) -> list[Node]:
    """Primaries by their slots, then replicas by their primaries, then sentinels."""
    primaries = [node for node in nodes if node.role == "primary"]
    primaries.sort(key=lambda node: (not node.slots, node.slots, node.address))
    place = {node.address: n for n, node in enumerate(primaries)}
    offsets = {node.address: node.offset for node in primaries}
    others = [node for node in nodes if node.role != "primary"]
    others.sort(key=lambda n: (n.role, place.get(n.follows, len(place)), n.address))
    return [
        *primaries,
        *(_measured(node, offsets.get(node.follows)) for node in others),
    ]


def _measured(node: Node, offset: int | None) -> Node:
    if offset is None or node.offset is None:
        return node
    return msgspec.structs.replace(node, behind=max(0, offset - node.offset))


def _split(address: str) -> Address:
    host, _, port = address.rpartition(":")
    return host, int(port)
