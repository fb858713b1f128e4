"""Where keys lie among the 16,384 slots: ours, and those that somebody asks for."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from redis.exceptions import RedisError

from webapp import keys
from webapp.connection.roles import Clients, pools_of
from webapp.http import errors

SLOTS = 16_384
_LOOKED_AT = 1000  # keys of each server


@dataclass(frozen=True)
class Row:
    """The keys of one page, as marks on a strip."""

    page: str
    count: int
    slots: list[int]


@dataclass(frozen=True)
class Found:
    rows: list[Row]
    count: int
    is_all: bool  # False: a server has more keys than were looked at
    trouble: str = ""


@dataclass(frozen=True)
class Place:
    key: str
    before: str  # what is not hashed, before and after what is
    hashed: str
    after: str
    slot: int
    server: str


@dataclass(frozen=True)
class Asked:
    text: str
    places: list[Place]

    @property
    def slots_count(self) -> int:
        return len({place.slot for place in self.places})


def of_keys(clients: Clients, namespace: str) -> Found:
    """The slots of our keys that are there now (one round trip a server)."""
    names: set[bytes] = set()
    is_all = True
    servers = {tuple(map(id, pools_of(c))): c for _, c in clients.items()}
    try:
        for client in servers.values():
            count = _LOOKED_AT * len(pools_of(client))  # nodes of a Cluster share it
            reply: Any = client.scan(match=f"{namespace}:*", count=count)
            is_all = is_all and reply[0] == 0
            names.update(reply[1])
    except RedisError as error:
        return Found([], 0, is_all=False, trouble=errors.away(error))
    return Found(_rows(namespace, names), len(names), is_all)


def _rows(namespace: str, names: set[bytes]) -> list[Row]:
    by_page: dict[str, list[int]] = {}
    for raw in names:
        name = raw.decode(errors="replace")
        family = keys.family_of(namespace, name)
        by_page.setdefault(family.page if family else "others", []).append(
            keys.slot(name)
        )
    return [Row(page, len(at), sorted(set(at))) for page, at in sorted(by_page.items())]


def ask(names: Sequence[str], server_of: Callable[[str], str]) -> Asked:
    return Asked(" ".join(names), [_place(name, server_of(name)) for name in names])


def _place(name: str, server: str) -> Place:
    start, end = keys.hashed(name)
    return Place(
        name, name[:start], name[start:end], name[end:], keys.slot(name), server
    )
