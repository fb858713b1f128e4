"""Sign-in as Flask's session: a hash in Redis behind an id in a cookie.

A session starts at sign-in and only there. Redis is asked at the first look into it,
so a visitor without a cookie, or a page that does not ask, costs nothing.
"""

import re
from collections.abc import Iterator
from typing import Any, Literal, cast

import flask
import msgspec
from flask import Flask, Request, Response
from flask.sessions import SessionInterface, SessionMixin
from redis import Redis
from redis.exceptions import RedisError

from webapp import keys
from webapp.http import delivery, errors, events, metrics
from webapp.http.errors import Problem
from webapp.patterns.session_store import (
    Device,
    OneTimeCode,
    SessionStore,
    digest,
    new_id,
)
from webapp.settings import Settings
from webapp.shop.users import User, guest_name

Role = Literal["guest", "shopper"]

STORE = SessionStore()
CODES = OneTimeCode()

_ID = re.compile(r"[A-Za-z0-9_-]{43}")
_BROWSERS = {
    "Edg/": "Edge",
    "OPR/": "Opera",
    "Firefox/": "Firefox",
    "Chrome/": "Chrome",
    "Safari/": "Safari",
    "curl/": "curl",
}
_SYSTEMS = {
    "Android": "Android",
    "iPhone": "iPhone",
    "iPad": "iPad",
    "Windows": "Windows",
    "Mac OS": "macOS",
    "Linux": "Linux",
}


class Visitor(msgspec.Struct, frozen=True):
    """Who is signed in."""

    id: str  # "17", or a guest's name
    name: str
    role: Role


class Who(msgspec.Struct, frozen=True):
    """The same for a page, which is shown also while Redis is away."""

    visitor: Visitor | None
    known: bool = True  # False: Redis did not answer


class Sessions(SessionInterface):
    """Flask's way to the store: where sessions are, and what their cookie is."""

    def __init__(self, client: Redis, namespace: str) -> None:
        self.client = client
        self._namespace = namespace

    def key(self, member: str) -> str:
        return keys.key(self._namespace, keys.SESSION, member)

    def index(self, user_id: str) -> str:
        return keys.key(self._namespace, keys.USER_SESSIONS, user_id)

    def code_key(self, name: str) -> str:
        return keys.key(self._namespace, keys.CODE, name)

    def open_session(self, app: Flask, request: Request) -> "Session":
        session_id = request.cookies.get(_cookie(request), "")
        return Session(self, session_id if _ID.fullmatch(session_id) else None)

    def save_session(
        self, app: Flask, session: SessionMixin, response: Response
    ) -> None:
        """Write what a view left unsaved, and tell the browser of a new or ended id.

        A cookie whose session is not there stays: the answer to a request that was
        slow would else remove the cookie of a sign-in that came after it.
        """
        session = cast("Session", session)
        try:
            session.save()
        except RedisError as error:
            _replace(response, errors.redis_away(error))
        if session.accessed:
            response.headers["Cache-Control"] = "no-store"
            response.vary.add("Cookie")
        if session.cookie == "kept":
            return
        name, secure = _cookie(flask.request), flask.request.is_secure
        flags: Any = {
            "path": "/",
            "secure": secure,
            "httponly": True,
            "samesite": "Lax",
        }
        if session.cookie == "new":
            age_s = STORE.absolute_ms // 1000
            response.set_cookie(name, session.id or "", max_age=age_s, **flags)
        else:
            response.delete_cookie(name, **flags)


class Session(SessionMixin):
    """The fields of one session, as JSON; a changed value is given as a whole.

    Every method may raise redis.RedisError.
    """

    def __init__(self, sessions: Sessions, session_id: str | None) -> None:
        self.sessions = sessions
        self.id = session_id
        self.cookie: Literal["kept", "new", "ended"] = "kept"
        self._fields: dict[str, Any] | None = None if session_id else {}
        self._changed: set[str] = set()
        self._failure: RedisError | None = None

    @property
    def member(self) -> str:
        """What the server calls it."""
        return digest(self.id or "")

    @property
    def is_known(self) -> bool:
        """Whether it was asked for, or needs no asking."""
        return self._fields is not None or self._failure is not None

    @property
    def visitor(self) -> Visitor | None:
        """Who is signed in."""
        if "user" not in self:
            return None
        return Visitor(self["user"], self["name"], self["role"])

    def sign_in(self, visitor: Visitor, device: str) -> None:
        """Start under a new id, and end the session there was."""
        self.end(self.member)
        fields = {
            "user": visitor.id,
            "name": visitor.name,
            "role": visitor.role,
            "device": device,
        }
        session_id, client = new_id(), self.sessions.client
        member, index = digest(session_id), self.sessions.index(visitor.id)
        over = STORE.enlist(client, index, member=member)
        key = self.sessions.key(member)
        STORE.start(client, key, fields={n: _encode(v) for n, v in fields.items()})
        STORE.end(client, index, ended={m: self.sessions.key(m) for m in over})
        self.id, self._fields, self._changed = session_id, dict(fields), set()
        self.cookie = "new"
        metrics.EVENTS.labels("sessions", "signed_in").inc()

    def devices(self) -> list[Device]:
        """All sessions of who is signed in."""
        visitor = self.visitor
        if visitor is None:
            return []
        index = self.sessions.index(visitor.id)
        return STORE.devices(self.sessions.client, index, key_of=self.sessions.key)

    def end(self, *members: str) -> int:
        """End sessions of who is signed in, maybe this one; how many there were."""
        visitor, own = self.visitor, self.member
        if visitor is None:
            return 0
        index = self.sessions.index(visitor.id)
        ended = {member: self.sessions.key(member) for member in members}
        count = STORE.end(self.sessions.client, index, ended=ended)
        if own in members:
            self.id, self._fields, self._changed = None, {}, set()
            self.cookie = "ended"
        return count

    def save(self) -> bool:
        """Write the changed fields. False: the session ended meanwhile."""
        if not self._changed:
            return True
        fields, changed = self._loaded(), self._changed
        self._changed = set()
        changes = {n: _encode(fields[n]) if n in fields else None for n in changed}
        key = self.sessions.key(self.member)
        kept = STORE.write(self.sessions.client, key, changes=changes)
        if not kept:
            self._fields = {}
        return kept

    def _loaded(self) -> dict[str, Any]:
        """The fields, asked for once; so is a Redis that does not answer."""
        if self._failure is not None:
            raise self._failure
        if self._fields is None:
            key = self.sessions.key(self.member)
            try:
                loaded = STORE.load(self.sessions.client, key)
            except RedisError as failure:
                self._failure = failure
                raise
            found = loaded.fields if loaded else {}
            self._fields = {n: msgspec.json.decode(v) for n, v in found.items()}
        return self._fields

    def __getitem__(self, field: str) -> Any:
        return self._loaded()[field]

    def __setitem__(self, field: str, value: Any) -> None:
        """Raises LookupError where nobody is signed in."""
        if not self._loaded():
            raise LookupError("a session starts at sign-in, and nobody is signed in")
        self._loaded()[field] = value
        self._changed.add(field)

    def __delitem__(self, field: str) -> None:
        del self._loaded()[field]
        self._changed.add(field)

    def __iter__(self) -> Iterator[str]:
        return iter(self._loaded())

    def __len__(self) -> int:
        return len(self._loaded())


def current() -> Session:
    """The session of this request."""
    proxy: Any = flask.session
    return cast("Session", proxy._get_current_object())


def visitor() -> Visitor | None:
    """Who is signed in; read apart from what the page is about."""
    own = current()
    if own.is_known:
        return own.visitor
    with delivery.beside("Read the session", housekeeping=True):
        return own.visitor


def who() -> Who:
    """The same for a page, which does not fail with Redis."""
    try:
        return Who(visitor())
    except RedisError:
        return Who(None, known=False)


def require_visitor() -> Visitor:
    """Who is signed in. Raises Problem 401 where nobody is."""
    found = visitor()
    if found is None:
        raise Problem(
            401,
            "Not signed in",
            "Sign in, or become a guest with one click: POST /api/session/guest.",
        )
    return found


def sign_in(user: User) -> None:
    _sign_in(Visitor(str(user.id), user.name, "shopper"))


def sign_in_guest() -> None:
    """Sign in as somebody who was never here before."""
    name = guest_name()
    _sign_in(Visitor(name, name, "guest"))


def end_everywhere() -> int:
    """End all sessions of who is signed in; how many there were."""
    own = current()
    return own.end(own.member, *(device.member for device in own.devices()))


def issue_code() -> str:
    """A code that signs another device in, while this session lasts."""
    session, code = current(), OneTimeCode.new()
    name = _code_name(code)
    key = session.sessions.code_key(name)
    CODES.issue(session.sessions.client, key, payload=session.member)
    session["code"] = name
    session.save()
    return code


def sign_in_by_code(code: str) -> bool:
    """Sign in as who got the code. False: it is used, too old, or was never one."""
    session = current()
    client, key = session.sessions.client, session.sessions.code_key(_code_name(code))
    member = CODES.redeem(client, key)
    loaded = STORE.load(client, session.sessions.key(member)) if member else None
    if loaded is None:
        return False
    user, name, role = (
        msgspec.json.decode(loaded.fields[field]) for field in ("user", "name", "role")
    )
    _sign_in(Visitor(user, name, role))
    return True


def _code_name(code: str) -> str:
    settings: Settings = flask.current_app.extensions["settings"]
    return OneTimeCode.digest(code, pepper=settings.secret_key)


def _sign_in(visitor: Visitor) -> None:
    current().sign_in(visitor, device_name(flask.request.user_agent.string))
    events.tell_sign_in(visitor.role)


def device_name(user_agent: str) -> str:
    """'Firefox on Linux', as far as a browser says so."""
    browser = next((n for part, n in _BROWSERS.items() if part in user_agent), "")
    system = next((n for part, n in _SYSTEMS.items() if part in user_agent), "")
    return " on ".join(filter(None, (browser, system))) or "Unknown device"


def _cookie(request: Request) -> str:
    return "__Host-sid" if request.is_secure else "sid"


def _encode(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _replace(response: Response, other: Response) -> None:
    response.data, response.status = other.data, other.status
    response.headers.update(other.headers)
