"""How fast orders come and how long they take: what the faders say, in a file."""

import os
from pathlib import Path

import msgspec

_FILE = "pace.json"


class Pace(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Of the demo; where there is none, orders come by the API and take no time."""

    orders_per_min: int = 30
    work_ms: int = 4_000  # that a bill takes
    fail_percent: int = 4  # of the orders, whose bill fails each time
    reclaim_ms: int = 15_000  # without an acknowledgement, then others take over


PLAIN = Pace(orders_per_min=0, work_ms=0, fail_percent=0)
# Least, most and step. Work is shorter than the shortest time to reclaim.
BOUNDS = {
    "orders_per_min": (0, 300, 10),
    "work_ms": (0, 4_000, 500),
    "fail_percent": (0, 50, 1),
    "reclaim_ms": (5_000, 60_000, 1_000),
}


def read(instance: Path) -> Pace:
    """As last chosen; the default where nobody chose."""
    try:
        return msgspec.json.decode((instance / _FILE).read_bytes(), type=Pace)
    except (OSError, msgspec.MsgspecError):
        return Pace()


def write(instance: Path, pace: Pace) -> None:
    """Choose; workers and shoppers notice within a second."""
    draft = instance / f"{_FILE}.{os.getpid()}"
    draft.write_bytes(msgspec.json.encode(pace))
    draft.replace(instance / _FILE)
