"""Ways to sign in, each throttled, each named on the tape."""

import re

from flask import current_app, request
from sqlalchemy import Engine

from webapp.http import delivery, metrics, session
from webapp.http.limiter import address_id
from webapp.http.throttle import attempt
from webapp.shop import users

WRONG = "There is no such name with such a password."

_CODE = re.compile(r"[A-Z0-9]{8}")


def as_guest() -> None:
    """As somebody new. Raises Problem 429."""
    attempt("guest", _address())
    session.sign_in_guest()
    delivery.verdict("ok", "signed in")


def by_password(name: str, password: str) -> bool:
    """False: no such name with such a password. Raises Problem 429."""
    attempt("address", _address())
    if not (users.usable_name(name) and users.usable_password(password)):
        return refused()
    attempt("account", name.lower())
    user = users.authenticate(_engine(), name, password)
    if user is None:
        return refused()
    session.sign_in(user)
    delivery.verdict("ok", "signed in")
    return True


def by_code(text: str) -> bool:
    """False: the code is used, too old, or was never one. Raises Problem 429."""
    code = re.sub(r"[\s-]", "", text).upper()
    if not _CODE.fullmatch(code):
        return refused()
    attempt("code", _address())
    if not session.sign_in_by_code(code):
        return refused()
    delivery.verdict("ok", "signed in")
    return True


def register(name: str, password: str) -> bool:
    """Add a user and sign in. False: the name is taken. Raises Problem 429."""
    attempt("address", _address())
    user = users.register(_engine(), name, password)
    if user is None:
        return refused()
    session.sign_in(user)
    delivery.verdict("ok", "signed in")
    return True


def change_password(old: str, new: str) -> bool:
    """Set it, end every session, and start this one anew. False: `old` is wrong."""
    visitor = session.require_visitor()
    attempt("account", visitor.name)
    user = users.authenticate(_engine(), visitor.name, old)
    if user is None:
        return refused()
    users.set_password(_engine(), user.id, new)
    session.end_everywhere()
    session.sign_in(user)
    delivery.verdict("ok", "changed")
    return True


def refused() -> bool:
    """Count a refusal, and name it."""
    metrics.EVENTS.labels("sessions", "refused").inc()
    delivery.verdict("no", "refused")
    return False


def _address() -> str:
    return address_id(request.remote_addr)


def _engine() -> Engine:
    engine: Engine = current_app.extensions["catalog"].engine
    return engine
