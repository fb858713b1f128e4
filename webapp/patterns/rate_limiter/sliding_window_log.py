"""Sliding window log: remember when each request was admitted, count the recent ones.

Problem: a fixed window lets twice the limit through around its end. Here a sorted set
holds one member an admitted request, scored with its time. Those older than the
window leave, the rest are counted, and a request passes while they are fewer than the
limit. Reading and then deciding takes two steps, so they are one Lua script, and the
time is the server's: a caller whose clock is ahead would push out what others did.

Keys
    log     sorted set, a member an admitted unit, score = ms of the server's clock.
            TTL `window_ms` from the last one. At 100 units 2,648 B on Redis 7.0
            and 2,192 B on Valkey 9.1, about 26 bytes a unit with all overhead; above
            128 units, where it is a skip list, about 105 and 80.
    tally   see `tally`; only where the caller wants totals.

Commands
    decide  1 round trip   EVALSHA: TIME, ZREMRANGEBYSCORE O(log n + left), ZCARD,
                           ZADD O(log n), PEXPIRE, ZRANGE; with a tally, two more

Guarantees: no span of `window_ms` ever holds more than `limit` admitted units, to the
millisecond of the server's clock and whatever number of callers. After
`retry_after_ms` enough of the oldest have left. Members are unique, so a burst within
one millisecond is counted in full.

Limits: memory grows with the limit. Refused requests are not added, so who keeps
asking is not kept out for it. A jump of the server's clock moves the window with it.
Redis down: raises RedisError, and the caller chooses; this app falls back to a
limiter in each process, with its share of the limit.

Source: https://redis.io/docs/latest/develop/use-cases/rate-limiter/
"""

import secrets
from dataclasses import dataclass

import redis

from webapp.patterns.rate_limiter import Decision, check_cost
from webapp.patterns.rate_limiter.tally import TTL_MS
from webapp.scripts import load as load_script

_decide = load_script("rate_limiter/sliding_window_log")


@dataclass(frozen=True)
class SlidingWindowLog:
    """The parameters of one limit; the time in ms."""

    limit: int = 100
    window_ms: int = 60_000

    def decide(
        self,
        client: redis.Redis,
        key: str,
        cost: int = 1,
        *,
        tally_key: str | None = None,
    ) -> Decision:
        """Say whether the request passes, and log it if so (one script, one trip).

        With a `tally_key`, what was said is added to the totals in the same script.
        Raises CostTooHigh.
        """
        check_cost(cost, self.limit)
        keys = [key] if tally_key is None else [key, tally_key]
        member = secrets.token_urlsafe(6)
        reply = _decide(
            client, keys, [self.limit, self.window_ms, cost, member, TTL_MS]
        )
        allowed, remaining, retry_after_ms, reset_after_ms = reply
        return Decision(
            allowed=bool(allowed),
            limit=self.limit,
            remaining=remaining,
            retry_after_ms=retry_after_ms,
            reset_after_ms=reset_after_ms,
        )
