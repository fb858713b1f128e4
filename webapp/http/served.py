"""How long a hit and a miss took this visitor, kept in a cookie of their own."""

import msgspec
from flask import Response, request


class Served(msgspec.Struct):
    """How long reads took, as this visitor saw them, in µs; None: not seen yet."""

    verdict: str  # of this read: hit, miss or bypass
    us: int  # of this read
    last_miss_us: int | None
    last_hit_us: int | None

    @property
    def ratio(self) -> float | None:
        """How many times faster a hit was."""
        if not self.last_miss_us or not self.last_hit_us:
            return None
        return self.last_miss_us / self.last_hit_us


def measured(outcome: str, us: int) -> Served:
    """This read, beside the visitor's last ones from their own cookie."""
    miss, _, hit = request.cookies.get("served", "").partition(".")
    served = Served(outcome, us, _us(miss), _us(hit))
    if outcome == "hit":
        served.last_hit_us = us
    elif outcome == "miss":
        served.last_miss_us = us
    return served


def keep(response: Response, served: Served) -> None:
    text = f"{served.last_miss_us or ''}.{served.last_hit_us or ''}"
    response.set_cookie(
        "served",
        text,
        path="/catalog",
        secure=request.is_secure,
        httponly=True,
        samesite="Lax",
    )


def _us(text: str) -> int | None:
    return int(text) if text.isdecimal() and len(text) < 10 else None
