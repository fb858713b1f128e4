"""Store credit of three shoppers, which they pass on to each other."""

from typing import Literal, cast

import redis

from webapp import keys
from webapp.patterns.transactions import Moved, Pair, Transfers

Way = Literal["queued", "watched", "scripted"]

NAMES = ("Anna", "Ben", "Cleo")
START = 100  # € of each
WAYS: tuple[Way, ...] = ("scripted", "watched", "queued")
_BANK = "shop"  # one group, so that every two accounts share a slot


class Accounts:
    def __init__(self, client: redis.Redis, namespace: str) -> None:
        self.client = client
        self.transfers = Transfers(ttl_ms=keys.ACCOUNT.ttl_ms or 0)
        self.keys = tuple(
            keys.key(namespace, keys.ACCOUNT, _BANK, name) for name in NAMES
        )

    def balances(self) -> dict[str, int]:
        """By name; whoever has no account yet gets one (one round trip)."""
        with self.client.pipeline(transaction=True) as multi:
            for key in self.keys:
                multi.set(key, START, nx=True, px=self.transfers.ttl_ms)
            multi.mget(self.keys)
            found = cast("list[bytes]", multi.execute()[-1])
        return dict(zip(NAMES, map(int, found), strict=True))

    def start_again(self) -> None:
        with self.client.pipeline(transaction=True) as multi:
            for key in self.keys:
                multi.set(key, START, px=self.transfers.ttl_ms)
            multi.execute()

    def move(self, way: Way, giver: str, taker: str, amount: int) -> Moved:
        """Both are of NAMES. Raises TooContended, redis.RedisError."""
        by_name = dict(zip(NAMES, self.keys, strict=True))
        pair = Pair(by_name[giver], by_name[taker])
        move = getattr(self.transfers, way)
        return cast("Moved", move(self.client, pair, amount=amount))
