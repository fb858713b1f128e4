"""Key names as text: names are bytes of any kind, pages and URLs are not.

The written form of a name is the name itself wherever it is plain text. Everything
else, and the percent sign, is percent-encoded, so a written name can be read back.
"""

from urllib.parse import quote, unquote_to_bytes

from webapp.keys import Family

LONGEST = 512  # bytes of a name that pages link to
_DIGEST_LENGTH = 32
_SHOWN_OF_A_DIGEST = 8


def written(name: bytes) -> str:
    text = name.decode("utf-8", "surrogateescape")
    return "".join(
        c
        if c.isprintable() and c != "%"
        else quote(c, safe="", errors="surrogateescape")
        for c in text
    )


def read(text: str) -> bytes:
    """The name that was written as `text`."""
    return unquote_to_bytes(text)


def shown(name: bytes, family: Family | None) -> str:
    """For people: cut where it is long, its group hidden where it is secret."""
    text = written(name)
    if family is not None and family.secret:
        head, _, tail = text.partition("{")
        group, _, rest = tail.partition("}")
        kept = _SHOWN_OF_A_DIGEST if len(group) >= _DIGEST_LENGTH else 0
        return f"{head}{{{group[:kept]}…}}{rest}"
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"
