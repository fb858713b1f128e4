"""Activity feed: the newest things somebody did, on a list that is capped.

Problem: show what a user did last, newest first, without asking a table that grows for
ever. A list takes a new entry at its front and loses one at its end, both at once.
Four traps: a crash between LPUSH and LTRIM leaves more than the cap, and a list without
an end; a push that is repeated after a lost reply doubles its entry; pages by offset
repeat and miss entries, because every push moves the whole list; and a list that holds
the things themselves shows them as they once were.

Keys
    feed   list of entries, the newest first, at most `longest`. An entry is a short
           id, "view:1042:1795385319442"; what it is about is looked up when shown.
           TTL `ttl_ms` after the last entry.

Commands (N entries kept, M answered)
    add    1 round trip   MULTI LREM LPUSH LTRIM PEXPIRE EXEC, O(N)
    page   1 round trip   EVALSHA page: LLEN, LPOS, LRANGE, O(N + M)

Guarantees: the list never holds more than `longest` entries, and never lacks a TTL. An
add that is sent again, because its reply was lost, leaves one entry: LREM takes away
the one that the first try may have left. Pages go by entry: what was there when a
reader began is shown once, however many entries arrive meanwhile. An entry that is
gone is said to be gone, and is not taken for the beginning.

Limits: the same entry added twice is one entry, the newer one, so whatever must be
told apart has to differ, in its time for example. That time is the caller's: it is
shown and never compared, the order is the list's. An add that is repeated late is in
front of what came in between. Every add walks the list, which its cap keeps short.
Redis down: RedisError reaches the caller. Here a note fails open (the page is served,
the entry is lost), and the list itself fails closed.

Source: https://redis.io/docs/latest/develop/data-types/lists/
"""

from dataclasses import dataclass

import redis

from webapp.scripts import load as load_script

_page = load_script("activity_feed/page")


@dataclass(frozen=True)
class Page:
    entries: tuple[str, ...]  # the newest first
    next: str | None  # what to ask for older ones with; None: these are the oldest
    first: int  # how many newer entries there are: 10 on the second page of ten
    kept: int  # entries on the list
    gone: bool = (
        False  # the entry to go on after is not there: trimmed, or it never was
    )


@dataclass(frozen=True)
class ActivityFeed:
    longest: int = 50  # entries kept
    ttl_ms: int = 7 * 24 * 3_600_000  # without a new entry

    def add(self, client: redis.Redis, key: str, *, entry: str) -> int:
        """Put an entry in front (one MULTI, safe to repeat); how many are kept."""
        with client.pipeline(transaction=True) as multi:
            multi.lrem(key, 0, entry)
            multi.lpush(key, entry)
            multi.ltrim(key, 0, self.longest - 1)
            multi.pexpire(key, self.ttl_ms)
            length = int(multi.execute()[1])
        return min(length, self.longest)

    def page(
        self, client: redis.Redis, key: str, *, after: str | None = None, count: int
    ) -> Page:
        """The entries that are older than `after`, or the newest (one script)."""
        first, kept, found = _page(client, [key], [after or "", count])
        entries = [entry.decode() for entry in found]
        older = kept > first + len(entries)
        return Page(
            entries=tuple(entries),
            next=entries[-1] if entries and older else None,
            first=max(first, 0),
            kept=kept,
            gone=first < 0,
        )
