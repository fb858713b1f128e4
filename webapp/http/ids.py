"""Ids are checked before Redis or the database is touched."""

import re

from webapp.http.errors import Problem

_DECIMAL = re.compile(r"0|[1-9][0-9]{0,9}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_ENTRY = re.compile(r"[0-9]{1,15}-[0-9]{1,9}")
_LOCAL_PATH = re.compile(r"/(?:[A-Za-z0-9?][A-Za-z0-9/_.?=&%-]{0,200})?")
LARGEST = 2**31 - 1


def number(text: str, *, what: str) -> int:
    """A decimal id. 400 for anything else, 404 where nothing can exist."""
    if not _DECIMAL.fullmatch(text):
        raise Problem(400, "Not an id", f"{what}: a number without leading zero.")
    if int(text) > LARGEST:
        raise Problem(404, "Not found", f"There is no {what} with such a number.")
    return int(text)


def name(text: str, *, what: str) -> str:
    if not _NAME.fullmatch(text):
        raise Problem(
            400, "Not a name", f"{what}: letters, digits, - and _, at most 64 of them."
        )
    return text


def entry(text: str, *, what: str) -> str:
    """The id of a stream's entry: milliseconds, a hyphen, a number."""
    if not _ENTRY.fullmatch(text):
        raise Problem(400, "Not an id", f"{what}: an id as in 1795385319442-0.")
    return text


def local_path(text: str, *, otherwise: str) -> str:
    """A path on this site to go on to; anything else is not followed."""
    return text if _LOCAL_PATH.fullmatch(text) else otherwise


def bounded(text: str, *, what: str, least: int, most: int) -> int:
    """A whole number within bounds, from a query or a form."""
    if _DECIMAL.fullmatch(text) and least <= int(text) <= most:
        return int(text)
    raise Problem(400, "Out of bounds", f"{what}: a number from {least} to {most}.")
