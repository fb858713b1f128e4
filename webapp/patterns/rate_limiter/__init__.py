"""Rate limiting: one module an algorithm, and the words that they all answer in."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Decision:
    """Whether a request may pass, and what its client may still do."""

    allowed: bool
    limit: int  # units a window, 100
    remaining: int  # units that would pass right now, 62
    retry_after_ms: int  # when to ask again, 1_210; 0: it passed
    reset_after_ms: int  # until the oldest units come back, 41_210


class CostTooHigh(ValueError):
    """A cost that no window could ever admit, or none at all."""


def check_cost(cost: int, limit: int) -> None:
    """Raises CostTooHigh for a cost that is not between 1 and the limit."""
    if not 1 <= cost <= limit:
        raise CostTooHigh(f"a cost from 1 to {limit}, not {cost}")
