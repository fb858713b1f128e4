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
    """JSON has one kind of number: 154.0 is the integer 154 in an object's fields."""
    if not isinstance(body, dict):
        return body
    return {
        name: int(value) if isinstance(value, float) and value.is_integer() else value
        for name, value in body.items()
    }
