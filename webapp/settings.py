"""Every setting of the app, read from the environment once. Nobody else reads it."""

import contextlib
import ipaddress
import os
import secrets
import tempfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import msgspec

from webapp import paths
from webapp.connection import addresses

Role = Literal["cache", "durable"]
ROLES: tuple[Role, ...] = ("cache", "durable")

_LONGEST_SOCKET_PATH = 100  # bytes; Redis refuses 108, macOS 104
_SHORTEST_SECRET = 16
_REDIS_SCHEMES = ("redis", "rediss", "unix", "fake")


class SettingsError(ValueError):
    """A setting that cannot be used; the text says which, and what it takes."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    instance_path: Path  # a folder of our own: database, sockets, secret key
    namespace: str  # first part of every key
    redis_urls: dict[Role, str]
    embedded_roles: tuple[Role, ...]  # roles whose server the launcher starts
    database_url: str
    secret_key: str
    admin_password: str | None
    demo: bool  # faders, simulated shoppers, reset
    trusted_hosts: tuple[str, ...]  # empty: whatever the address bar says, on loopback
    trusted_proxies: int  # how many proxies in front to believe
    host: str
    port: int
    workers: int
    threads: int  # of each worker; websockets may take half

    def __repr__(self) -> str:
        """Without the others: keys, passwords, and URLs that hold some."""
        return f"Settings({self.instance_path}, {self.namespace})"

    @property
    def is_loopback(self) -> bool:
        return _is_loopback(self.host)

    @property
    def metrics_path(self) -> Path:
        """The folder of the Prometheus files that all workers share."""
        return self.instance_path / "metrics"

    @property
    def sockets(self) -> Path:
        """The folder of the embedded servers' unix sockets."""
        return sockets_folder(self.instance_path)


def from_environ(environ: Mapping[str, str] = os.environ) -> Settings:
    """Read all settings. Raises SettingsError with a text for people."""
    instance = Path(environ.get("INSTANCE_PATH") or _default_instance()).absolute()
    host = environ.get("HOST") or "127.0.0.1"
    shared = _redis_url(environ, "REDIS_URL")
    configured = {
        "cache": _redis_url(environ, "REDIS_CACHE_URL") or shared,
        "durable": _redis_url(environ, "REDIS_DURABLE_URL") or shared,
    }
    embedded = tuple(role for role in ROLES if not configured[role])
    sockets = sockets_folder(instance)
    urls = {r: configured[r] or f"unix://{sockets}/{r}.sock" for r in ROLES}
    trusted = tuple((environ.get("TRUSTED_HOSTS") or "").replace(",", " ").split())
    loopback = _is_loopback(host)
    default_demo = "1" if loopback and len(embedded) == len(ROLES) else "0"
    return Settings(
        instance_path=instance,
        namespace=_namespace(environ.get("NAMESPACE") or "rpl"),
        redis_urls=urls,
        embedded_roles=embedded,
        database_url=_read(environ, "DATABASE_URL")
        or f"sqlite:///{instance / 'shop.db'}",
        secret_key=_secret_key(environ, instance, loopback=loopback),
        admin_password=_read(environ, "ADMIN_PASSWORD"),
        demo=(environ.get("DEMO") or default_demo) == "1",
        trusted_hosts=trusted or (_LOOPBACK_NAMES if loopback else ()),
        trusted_proxies=_count(environ, "TRUSTED_PROXIES", default=0, least=0),
        host=host,
        port=_count(environ, "PORT", default=8000, least=0, most=65535),
        workers=_count(environ, "WORKERS", default=1, least=1),
        threads=_count(environ, "THREADS", default=64, least=4),
    )


def environ_with(more: Mapping[str, str]) -> dict[str, str]:
    """The environment for a child process: our own, and `more`."""
    return {**os.environ, **more}


def share_metrics(settings: Settings) -> None:
    """Count with the running app, if there is one; before any metric is imported."""
    if settings.metrics_path.is_dir():
        os.environ.setdefault("PROMETHEUS_MULTIPROC_DIR", str(settings.metrics_path))


def sockets_folder(instance: Path) -> Path:
    """The instance folder, or a 0700 folder under the temp directory if too long."""
    if len(str(instance / "durable.sock").encode()) <= _LONGEST_SOCKET_PATH:
        return instance
    name = f"rpl-{os.getuid()}-{zlib.crc32(str(instance).encode()):x}"
    return Path(tempfile.gettempdir()) / name


_LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _default_instance() -> Path:
    if paths.CHECKOUT:
        return paths.ROOT / "instance"
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state"
    return Path(state) / "redis-patterns-live"


def _read(environ: Mapping[str, str], name: str) -> str | None:
    """A value, or the content of the file that NAME_FILE names."""
    if file := environ.get(f"{name}_FILE"):
        try:
            return Path(file).read_text().strip()
        except OSError as error:
            raise SettingsError(f"{name}_FILE: cannot read {file}: {error}") from error
    return environ.get(name) or None


def _redis_url(environ: Mapping[str, str], name: str) -> str | None:
    """A URL of a kind the app speaks; its password stays out of the message."""
    url = _read(environ, name)
    if url is None:
        return None
    try:
        if addresses.is_set(url):
            addresses.parse(url)
            return url
        parts = urlsplit(url)
        usable = parts.scheme in _REDIS_SCHEMES and parts.port != 0
    except ValueError:
        usable = False
    if usable:
        return url
    raise SettingsError(
        f"{name}: redis://host:port, rediss://host:port, unix:///path, "
        "redis+sentinel://host:port,host:port/service or redis+cluster://host:port"
    )


def _namespace(value: str) -> str:
    if value.isascii() and value.replace("-", "").replace("_", "").isalnum():
        return value
    raise SettingsError(f"NAMESPACE: letters, digits, - and _ only, not {value!r}")


def _count(
    environ: Mapping[str, str], name: str, *, default: int, least: int, most: int = 4096
) -> int:
    text = environ.get(name) or str(default)
    if text.isdecimal() and least <= int(text) <= most:
        return int(text)
    raise SettingsError(f"{name}: a whole number from {least} to {most}, not {text!r}")


def _secret_key(environ: Mapping[str, str], instance: Path, *, loopback: bool) -> str:
    given = _read(environ, "SECRET_KEY")
    if given is not None:
        if len(given) < _SHORTEST_SECRET:
            raise SettingsError(
                f"SECRET_KEY: at least {_SHORTEST_SECRET} characters, for example "
                "from: python -c 'import secrets; print(secrets.token_hex(32))'"
            )
        return given
    if not loopback:
        raise SettingsError("SECRET_KEY: needed when HOST is not loopback")
    return _kept_secret(instance / "secret_key")


def _kept_secret(file: Path) -> str:
    """The key kept in the instance folder, made at the first start."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        handle = os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        os.write(handle, secrets.token_hex(32).encode())
        os.close(handle)
    return file.read_text()
