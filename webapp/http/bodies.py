"""JSON bodies of the API: checked against a struct, or a problem that says why not."""

from typing import Any, TypeVar

import msgspec
from flask import request

from webapp.http.errors import Problem

T = TypeVar("T")


def parse(kind: type[T]) -> T:
    """The request's body. Raises Problem 415 or 400."""
    if request.mimetype != "application/json":
        raise Problem(415, "Not JSON", "Send application/json.")
    try:
        return msgspec.convert(_whole(msgspec.json.decode(request.get_data())), kind)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise Problem(400, "Unusable body", str(error)) from error


def _whole(body: Any) -> Any:
    """JSON has one kind of number: 154.0 is the integer 154, wherever it stands."""
    if isinstance(body, dict):
        return {name: _whole(value) for name, value in body.items()}
    if isinstance(body, list):
        return [_whole(item) for item in body]
    return int(body) if isinstance(body, float) and body.is_integer() else body
