"""Sign-in as JSON. Its answers are the public interface: keep them stable."""

from flask import Blueprint, Response

from webapp.http import bodies, delivery, session, signin
from webapp.http.errors import Problem
from webapp.http.openapi.sessions import Credentials, SessionState, SignedIn

bp = Blueprint("session_api", __name__, url_prefix="/api/session")


@bp.get("")
def show() -> Response:
    """Who is signed in with this cookie, or null."""
    return _state()


@bp.post("")
def sign_in() -> Response:
    """Sign in by name and password."""
    given = bodies.parse(Credentials)
    if not signin.by_password(given.username, given.password):
        raise Problem(401, "Not signed in", signin.WRONG)
    return _state()


@bp.post("/guest")
def sign_in_guest() -> Response:
    """Sign in as somebody new."""
    signin.as_guest()
    return _state()


@bp.delete("")
def sign_out() -> Response:
    """End this session."""
    own = session.current()
    own.end(own.member)
    return _state()


def _state() -> Response:
    visitor = session.current().visitor
    user = SignedIn(visitor.name, visitor.role) if visitor else None
    return delivery.json(SessionState(user))
