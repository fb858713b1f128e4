"""The words that every part of the document is written in."""

from typing import Any

import msgspec

NAME = {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$"}
ID = {"type": "integer", "minimum": 1, "maximum": 2**31 - 1}

_FAILURES = {
    400: "Not understood",
    401: "Not signed in, or a wrong name or password",
    403: "From another site, or not allowed",
    404: "Nothing there",
    409: "Not as things stand",
    413: "Over 64 KB",
    415: "Not JSON",
    429: "Too often; see Retry-After",
    503: "Not now; see Retry-After",
}


class Problem(msgspec.Struct):
    """What every failure answers, as application/problem+json."""

    type: str
    title: str
    status: int
    detail: str
    instance: str


def ref(kind: type) -> dict[str, Any]:
    """The schema of a struct; its part lists the struct in TYPES."""
    return {"$ref": f"#/components/schemas/{kind.__name__}"}


def answer(
    description: str,
    kind: type,
    *,
    media: str = "application/json",
    headers: dict[str, Any] | None = None,
) -> dict[str, Any]:
    said: dict[str, Any] = {
        "description": description,
        "content": {media: {"schema": ref(kind)}},
    }
    return said | ({"headers": headers} if headers else {})


def failures(*statuses: int) -> dict[str, Any]:
    return {
        str(status): answer(
            _FAILURES[status], Problem, media="application/problem+json"
        )
        for status in statuses
    }


def query(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "query", "schema": schema}


def path(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": schema}


def body(kind: type) -> dict[str, Any]:
    content = {"application/json": {"schema": ref(kind)}}
    return {"required": True, "content": content}
