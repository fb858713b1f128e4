"""Fixed window: count requests, and forget the count when the window ends.

Problem: a client may ask so often a minute and no more. One counter a client does it:
the first request starts the window by giving the counter its TTL, each request adds
one, and above the limit it is refused. INCR and then EXPIRE is the classic mistake:
who dies in between leaves a counter that never ends. PEXPIRE NX in the same MULTI
closes it, and heals a counter that somebody else left without a TTL.

Keys
    window  string, units asked for in this window. TTL `window_ms` from its first
            request. No clock and no window number in its name: its TTL is the window.
    tally   see `tally`; only where the caller wants totals.

Commands
    decide  1 round trip   MULTI: INCRBY, PEXPIRE NX, PTTL, each O(1); with a tally,
                           one script more in the same MULTI

Guarantees: at most `limit` units are admitted in each window, whatever number of
callers on whatever clocks. After `retry_after_ms` the window is over. A counter
without a TTL gets one at the next request.

Limits: twice the limit fits around a window's end, half before it and half after.
Refused requests count too: with a cost above 1, a refused one uses up what was left.
Redis down: raises RedisError, and the caller chooses; this app falls back to a
limiter in each process, with its share of the limit.

Source: https://redis.io/docs/latest/commands/incr/ (pattern: rate limiter).
"""

from dataclasses import dataclass

import redis

from webapp.patterns.rate_limiter import Decision, check_cost, tally


@dataclass(frozen=True)
class FixedWindow:
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
        """Count the request and say whether it passes (one MULTI, one round trip).

        With a `tally_key`, what was said is added to the totals in the same MULTI.
        Raises CostTooHigh.
        """
        check_cost(cost, self.limit)
        with client.pipeline(transaction=True) as multi:
            if tally_key is not None:
                tally.add(multi, key, tally_key, limit=self.limit, cost=cost)
            multi.incrby(key, cost)
            multi.pexpire(key, self.window_ms, nx=True)
            multi.pttl(key)
            *_, asked, _, ttl_ms = multi.execute()
        # A key still exists in its last millisecond.
        ends_in_ms = max(ttl_ms, 0) + 1
        allowed = asked <= self.limit
        return Decision(
            allowed=allowed,
            limit=self.limit,
            remaining=max(self.limit - asked, 0),
            retry_after_ms=0 if allowed else ends_in_ms,
            reset_after_ms=min(ends_in_ms, self.window_ms),
        )
