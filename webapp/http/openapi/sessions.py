"""Sign-in: by name and password, or as a new guest."""

from typing import Any, Literal

import msgspec

from webapp.http.openapi.parts import answer, body, failures


class Credentials(msgspec.Struct, forbid_unknown_fields=True):
    username: str
    password: str


class SignedIn(msgspec.Struct):
    name: str
    role: Literal["guest", "shopper"]


class SessionState(msgspec.Struct):
    """Who is signed in with the cookie of this request."""

    user: SignedIn | None


TYPES = (Credentials, SessionState)
REFINED: dict[str, Any] = {}

_COOKIE = {"Set-Cookie": {"schema": {"type": "string"}}}


def paths() -> dict[str, Any]:
    started = {"200": answer("Signed in", SessionState, headers=_COOKIE)}
    return {
        "/api/session": {
            "get": {
                "summary": "Who is signed in",
                "responses": {"200": answer("The user, or null", SessionState)}
                | failures(503),
            },
            "post": {
                "summary": "Sign in",
                "requestBody": body(Credentials),
                "responses": started | failures(400, 401, 403, 413, 415, 429, 503),
            },
            "delete": {
                "summary": "Sign out",
                "responses": {"200": answer("The user is null", SessionState)}
                | failures(403, 503),
            },
        },
        "/api/session/guest": {
            "post": {
                "summary": "Sign in as a new guest",
                "responses": started | failures(403, 413, 429, 503),
            }
        },
    }
