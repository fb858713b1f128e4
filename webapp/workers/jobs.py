"""What a worker does with an order: from its payload to what it adds to the totals."""

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import msgspec

from webapp.patterns.streams.consumer_group import Delivery
from webapp.shop.orders import ANALYTICS, BILLING, Order
from webapp.shop.pace import Pace

Work = Callable[[int], None]  # takes so many ms


class Declined(Exception):
    """The bill of this order fails, whoever tries."""


@dataclass(frozen=True)
class Job:
    """One group's way through the stream."""

    group: str
    batch: int  # entries asked for at once
    rest_ms: int  # between two batches
    do: Callable[[Delivery, Pace, Work], Mapping[str, int]]


def bill(delivery: Delivery, pace: Pace, work: Work) -> Mapping[str, int]:
    """Raises Declined, and msgspec.MsgspecError for what is no order."""
    order = msgspec.json.decode(delivery.payload, type=Order)
    work(pace.work_ms)
    # By its id: the same order fails each time, whoever tries.
    if zlib.crc32(delivery.origin.encode()) % 100 < pace.fail_percent:
        raise Declined("insufficient funds")
    cents = sum(item.quantity * item.price_cents for item in order.items)
    return {"orders": 1, "cents": cents}


def count(delivery: Delivery, pace: Pace, work: Work) -> Mapping[str, int]:
    """Raises msgspec.MsgspecError for what is no order."""
    order = msgspec.json.decode(delivery.payload, type=Order)
    sold: dict[str, int] = {"orders": 1}
    for item in order.items:
        name = f"product:{item.product_id}"
        sold[name] = sold.get(name, 0) + item.quantity
    return sold


JOBS = {
    BILLING: Job(BILLING, batch=1, rest_ms=0, do=bill),
    ANALYTICS: Job(ANALYTICS, batch=25, rest_ms=3_000, do=count),
}
