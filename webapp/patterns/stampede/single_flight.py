"""Single flight: one load in each process, for all of its threads who miss.

Problem: the threads of a process ask the database the same question at the same time.
The first asks; the others wait for its answer, which never leaves the process.

Keys
    value   string, the encoded row. TTL `ttl_ms` plus up to a tenth; `null`, a row that
            does not exist, 30 s.

Commands
    hit     1 round trip    GET, O(1)
    load    3 round trips   GET, GET, SET PX, O(1); the second GET in case that the
                            flight before has just landed
    wait    1 round trip    GET

Guarantees: of the threads that share one object, one loads. Nobody waits for longer
than `wait_ms`; who did loads, and keeps that to itself. An error of the load reaches
all who wait for it, and the next reader tries again.

Limits: each process loads once. Who joins a flight may get what was read before they
asked. It stores whatever it loaded, also what a write has replaced meanwhile. Redis
down: RedisError reaches everyone in the flight.

Source: https://pkg.go.dev/golang.org/x/sync/singleflight
"""

from dataclasses import dataclass, field

import redis

from webapp.patterns.stampede import Entry, Load, Read
from webapp.patterns.stampede._copies import get, keep
from webapp.patterns.stampede._flights import Flights


@dataclass(frozen=True)
class SingleFlight:
    """One load in this process: share one object among its threads."""

    ttl_ms: int = 3_600_000
    wait_ms: int = 1_000
    _flights: Flights = field(
        default_factory=Flights, init=False, repr=False, compare=False
    )

    def read(self, client: redis.Redis, entry: Entry, *, load: Load) -> Read:
        """Answer it, or join the flight that loads it, or be that flight."""
        payload = get(client, entry)
        if payload is not None:
            return Read(payload, "hit")
        flown, own = self._flights.share(
            entry.value,
            lambda: self._fly(client, entry, load),
            wait_s=self.wait_ms / 1000,
        )
        if flown is None:
            return Read(load(), "miss")
        return flown if own else Read(flown.payload, "miss")

    def _fly(self, client: redis.Redis, entry: Entry, load: Load) -> Read:
        # The flight before this one may have landed after we looked.
        payload = get(client, entry)
        if payload is not None:
            return Read(payload, "hit")
        payload = load()
        return Read(payload, "miss", keep(client, entry, payload, self.ttl_ms))
