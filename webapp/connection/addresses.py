"""URLs of several servers that are one: a Sentinel set, and a Cluster."""

from dataclasses import dataclass
from typing import Literal
from urllib.parse import unquote, urlsplit

Address = tuple[str, int]  # host and port

_DEFAULT_PORTS = {"sentinel": 26379, "cluster": 6379}


class UnusableSet(ValueError):
    """A URL that does not say where a set is; the text does not repeat it."""


@dataclass(frozen=True)
class SetUrl:
    """`redis+sentinel://host:port,host:port/service` or `redis+cluster://host:port`.

    User and password are the data servers', as in a `redis://` URL.
    """

    kind: Literal["sentinel", "cluster"]
    addresses: tuple[Address, ...]  # of sentinels, or of nodes to ask first
    service: str  # that the sentinels watch; empty for a Cluster
    username: str | None
    password: str | None


def is_set(url: str) -> bool:
    """Whether a URL is of this kind, usable or not."""
    return url.startswith(("redis+sentinel:", "redis+cluster:"))


def parse(url: str) -> SetUrl:
    """Raises UnusableSet for a URL that is not whole."""
    scheme, _, rest = url.partition("://")
    place, _, path = rest.partition("/")
    kind: Literal["sentinel", "cluster"]
    kind = "sentinel" if scheme == "redis+sentinel" else "cluster"
    credentials, _, hosts = place.rpartition("@")
    user, _, password = credentials.partition(":")
    service = path.strip("/")
    if bool(service) != (kind == "sentinel"):
        raise UnusableSet("sentinels need the name of a service, a cluster has none")
    return SetUrl(
        kind,
        tuple(_address(host, _DEFAULT_PORTS[kind]) for host in hosts.split(",")),
        unquote(service),
        unquote(user) or None,
        unquote(password) or None,
    )


def _address(text: str, default_port: int) -> Address:
    try:
        one = urlsplit(f"//{text}")
        if one.hostname and one.port != 0:
            return one.hostname, one.port or default_port
    except ValueError:  # no number, or half a bracket
        pass
    raise UnusableSet("an address is host:port")
