"""Transactions: several commands as one step, three ways to have it.

Problem: a transfer takes from one balance and gives to another, and may not take what
is not there. Each command is atomic, two of them are not. MULTI queues commands and
runs them with nothing between, but no queued command sees what another answered, so
it cannot look before it takes. WATCH looks first, and lets EXEC fail if what was seen
has changed since: then try again. A script looks and writes on the server, as one
step. Four traps: read and write as two commands, and the later write wins; MULTI
without a look, which overdraws; WATCH without a retry, which loses the transfer; and
MULTI does not roll back: where one of its commands fails, the others stand.

Keys
    giver, taker   string, a balance as a whole number, in one slot. TTL `ttl_ms`
                   after the last transfer.

Commands
    queued     1 round trip   MULTI DECRBY INCRBY PEXPIRE PEXPIRE EXEC, O(1), no look
    watched    3 round trips a try   WATCH; GET; MULTI .. EXEC, O(1)
    scripted   1 round trip   EVALSHA transfer, O(1)

Guarantees: each of the three is done whole or not at all, and nobody sees the half of
it. `watched` and `scripted` never take more than there is. `watched` never loses a
transfer: EXEC that fails has done nothing, and it is tried again after a short random
delay, at most `tries` times.

Limits: `queued` overdraws, so it is for what needs no look. Where the taker's key holds
no number, `queued` and `watched` raise after the giver has paid; `scripted` has done
nothing by then, because it gives before it takes. The more clients want the
same balance, the more tries `watched` needs; a script needs one at any load. MULTI and
scripts hold up every other client while they run: keep them short. None of them is
safe to repeat after a lost reply: give the transfer an id, as the leaderboard does
with its points. In Cluster both keys must lie in one slot.
Redis down: RedisError reaches the caller, and the transfer may or may not be done.

Source: https://redis.io/docs/latest/develop/using-commands/transactions/
"""

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import redis
from redis.client import Pipeline
from redis.exceptions import WatchError

from webapp.scripts import load as load_script

_transfer = load_script("transactions/transfer")

_DELAY_S = 0.002  # the longest before the second try; it doubles up to 16 times that


class TooContended(Exception):
    """Others changed the balance at every try. Nothing was moved."""


@dataclass(frozen=True)
class Pair:
    giver: str
    taker: str


@dataclass(frozen=True)
class Moved:
    done: bool  # False: the giver has too little
    left: int  # of the giver
    tries: int = 1


@dataclass(frozen=True)
class Look:
    """The giver's balance as it was seen, on a connection that watches it."""

    balance: int
    _pair: Pair
    _pipe: Pipeline
    _ttl_ms: int

    def move(self, amount: int) -> bool:
        """Move it, unless the balance changed since the look (1 round trip)."""
        self._pipe.multi()
        _queue(self._pipe, self._pair, amount, self._ttl_ms)
        try:
            self._pipe.execute()
        except WatchError:
            return False
        return True


@dataclass(frozen=True)
class Transfers:
    ttl_ms: int = 24 * 3_600_000  # without a transfer
    tries: int = 25  # of `watched`

    def queued(self, client: redis.Redis, pair: Pair, *, amount: int) -> Moved:
        """Move it without a look (1 round trip); what is left may be below 0."""
        with client.pipeline(transaction=True) as multi:
            _queue(multi, pair, amount, self.ttl_ms)
            return Moved(True, int(multi.execute()[0]))

    def watched(self, client: redis.Redis, pair: Pair, *, amount: int) -> Moved:
        """Look, and move it if nobody was faster, else again. Raises TooContended."""
        for n in range(1, self.tries + 1):
            with self.look(client, pair) as seen:
                if seen.balance < amount:
                    return Moved(False, seen.balance, n)
                if seen.move(amount):
                    return Moved(True, seen.balance - amount, n)
            time.sleep(random.uniform(0, _DELAY_S * 2 ** min(n - 1, 4)))
        raise TooContended(f"{self.tries} tries, and the balance changed at each")

    @contextmanager
    def look(self, client: redis.Redis, pair: Pair) -> Iterator[Look]:
        """One try: the balance, watched until the end of the block (2 round trips)."""
        with client.pipeline() as pipe:
            pipe.watch(pair.giver)
            balance = int(pipe.get(pair.giver) or 0)
            yield Look(balance, pair, pipe, self.ttl_ms)

    def scripted(self, client: redis.Redis, pair: Pair, *, amount: int) -> Moved:
        """Move it if the giver has it (one script)."""
        done, left = _transfer(client, [pair.giver, pair.taker], [amount, self.ttl_ms])
        return Moved(bool(done), int(left))


def _queue(multi: Pipeline, pair: Pair, amount: int, ttl_ms: int) -> None:
    multi.decrby(pair.giver, amount)
    multi.incrby(pair.taker, amount)
    multi.pexpire(pair.giver, ttl_ms)
    multi.pexpire(pair.taker, ttl_ms)
