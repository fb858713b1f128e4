"""Sign-in, the devices of who is signed in, and Break it."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from flask import Blueprint, Response, make_response, request

import webapp.patterns.session_store as session_store
from webapp import keys, words
from webapp.experiments.session_store import EXPERIMENTS
from webapp.http import delivery, ids, keypanel, lab, session, signin, sources, throttle
from webapp.http.errors import Problem
from webapp.http.session import CODES, STORE, Visitor
from webapp.patterns.session_store import Device
from webapp.shop import users

bp = Blueprint("sessions", __name__)

_HANDLE = 16  # characters of a digest that name a device in a form
_LONGEST_DEVICE = 40
_MINUTE_MS, _HOUR_MS = 60_000, 3_600_000

_FILES = (
    sources.python(Path(session_store.__file__), start="class SessionStore"),
    *(sources.lua(f"session_store/{verb}") for verb in ("load", "write")),
    *(sources.lua(f"session_store/{verb}") for verb in ("start", "enlist")),
)


class DeviceRow(msgspec.Struct):
    handle: str
    name: str
    is_this: bool
    seen: str  # "active now"
    since: datetime  # its sign-in
    ends: datetime  # in any case


@bp.get("/sessions")
def show() -> Response:
    """Ways to sign in, or the devices of who is signed in."""
    return _respond()


@bp.get("/login")
def login() -> Response:
    """The same; afterwards there is a way back to where the visitor came from."""
    return _respond()


@bp.post("/login")
def sign_in() -> Response:
    """The devices of a registered shopper, or the form and what was wrong."""
    name, password = request.form.get("username", ""), request.form.get("password", "")
    if signin.by_password(name, password):
        return _respond()
    return _respond(status=422, errors={"login": signin.WRONG})


@bp.post("/login/code")
def sign_in_by_code() -> Response:
    """The same person as on the device that showed the code."""
    if signin.by_code(request.form.get("code", "")):
        return _respond()
    wrong = "This code does not work. It may be used, or older than 5 minutes."
    return _respond(status=422, errors={"code": wrong})


@bp.post("/sessions/guest")
def sign_in_guest() -> Response:
    """A new guest."""
    signin.as_guest()
    return _respond()


@bp.post("/sessions/register")
def register() -> Response:
    """A new shopper, signed in."""
    name, password = request.form.get("username", ""), request.form.get("password", "")
    errors = {}
    if not users.usable_name(name):
        errors["new-name"] = users.NAME_RULE
    if not users.usable_password(password):
        errors["new-password"] = users.PASSWORD_RULE
    if not errors and not signin.register(name, password):
        errors["new-name"] = "This name is taken."
    return _respond(status=422 if errors else 200, errors=errors)


@bp.post("/sessions/out")
def sign_out() -> Response:
    """Signed out on this device."""
    own = session.current()
    own.end(own.member)
    delivery.verdict("ok", "signed out")
    return _respond()


@bp.post("/sessions/out-everywhere")
def sign_out_everywhere() -> Response:
    """Signed out on every device."""
    count = session.end_everywhere()
    delivery.verdict("ok", f"{count} ended")
    return _respond()


@bp.post("/sessions/end")
def end() -> Response:
    """One device less. Only the visitor's own devices are looked through."""
    _require_visitor()
    handle, own = request.form.get("device", ""), session.current()
    members = [d.member for d in own.devices() if d.member[:_HANDLE] == handle]
    if not members:
        raise Problem(404, "Not there", "This device is signed out already.")
    own.end(*members)
    delivery.verdict("ok", "signed out")
    return _respond()


@bp.post("/sessions/device")
def rename() -> Response:
    """This device under another name: one field of the session is written."""
    _require_visitor()
    name = " ".join(request.form.get("name", "").split())
    if not name.isprintable() or not 0 < len(name) <= _LONGEST_DEVICE:
        rule = f"1 to {_LONGEST_DEVICE} characters."
        return _respond(status=422, errors={"device": rule})
    own = session.current()
    own["device"] = name
    if own.save():
        delivery.verdict("ok", "saved")
    else:
        delivery.verdict("no", "session ended")
    return _respond()


@bp.post("/sessions/code")
def issue_code() -> Response:
    """A code for another device, shown this once."""
    visitor = _require_visitor()
    throttle.attempt("code", visitor.id)
    code = session.issue_code()
    delivery.verdict("ok", "code issued")
    return _respond(code=code, code_ttl_ms=CODES.ttl_ms)


@bp.post("/sessions/password")
def change_password() -> Response:
    """A new password; every other device is signed out."""
    if _require_visitor().role == "guest":
        raise Problem(403, "Guests have no password", "Register to have one.")
    old, new = request.form.get("old", ""), request.form.get("new", "")
    errors = {}
    if not users.usable_password(new):
        errors["new"] = users.PASSWORD_RULE
    elif not signin.change_password(old, new):
        errors["old"] = "This is not the password."
    return _respond(status=422 if errors else 200, errors=errors)


@bp.get("/sessions/keys")
def show_keys() -> str:
    """The keys of who is signed in, with their TTLs."""
    own = session.current()
    return keypanel.show(lambda: keypanel.rows(own.sessions.client, _own_keys(own)))


@bp.post("/sessions/experiments/<name>")
def run(name: str) -> Response:
    """One Break it card after a real run; its receipts are on the tape."""
    ran = lab.run(EXPERIMENTS, name, keys.SESSIONS_LAB)
    if delivery.is_htmx():
        return make_response(ran.card())
    return _respond(outcomes=ran.outcomes)


def _respond(*, status: int = 200, **more: Any) -> Response:
    return delivery.answer("sessions", status, **_context() | more)


def _context() -> dict[str, Any]:
    own = session.current()
    visitor = own.visitor
    rows = [_row(device, own.member) for device in own.devices()]
    return {
        "visitor": visitor,
        "devices": rows,
        "most": STORE.most,
        "device": own.get("device", ""),
        "code": None,
        "errors": {},
        "typed": request.form,
        "next": ids.local_path(request.values.get("next", ""), otherwise=""),
        "experiments": EXPERIMENTS,
        "outcomes": {},
        "words": words.SESSION_STORE,
        "sources": sources.with_badges(_FILES, delivery.own_receipt()),
    }


def _require_visitor() -> Visitor:
    """Who is signed in, read as a part of what the request is about."""
    own = session.current().visitor
    return own or session.require_visitor()


def _own_keys(own: session.Session) -> list[str]:
    visitor = own.visitor
    if visitor is None:
        return []
    names = [own.sessions.key(own.member), own.sessions.index(visitor.id)]
    if code := own.get("code"):
        names.append(own.sessions.code_key(code))
    return names


def _row(device: Device, own: str) -> DeviceRow:
    return DeviceRow(
        handle=device.member[:_HANDLE],
        name=msgspec.json.decode(device.fields.get("device", b'""')),
        is_this=device.member == own,
        seen=_seen(STORE.idle_ms - device.ttl_ms),
        since=_at(device.ends_ms - STORE.absolute_ms),
        ends=_at(device.ends_ms),
    )


def _seen(ago_ms: int) -> str:
    if ago_ms <= 2 * _MINUTE_MS:
        return "active now"
    if ago_ms < 2 * _HOUR_MS:
        return f"active {ago_ms // _MINUTE_MS} min ago"
    return f"active {ago_ms // _HOUR_MS} h ago"


def _at(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)
