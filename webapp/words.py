"""Each room in plain words: what it is, when to use it, what it costs, when not to."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Words:
    lead: str
    use: tuple[str, ...]
    costs: tuple[str, ...]
    avoid: tuple[str, ...]


CACHE_ASIDE = Words(
    lead=(
        "The application asks Redis first. If the answer is there, it is done. If not, "
        "it reads the database and leaves a copy behind for the next reader."
    ),
    use=(
        "reads far outnumber writes",
        "a slightly old answer is fine for the TTL",
        "the site must work with an empty cache",
    ),
    costs=(
        "the first reader waits for the database",
        "a write needs its own invalidation",
        "an expiring hot key can start a stampede",
    ),
    avoid=(
        "every read must see the last write",
        "values change more often than they are read",
    ),
)

LEADERBOARD = Words(
    lead=(
        "A sorted set keeps members in order of their scores. A rank, a page or the "
        "neighbours of a player are looked up, not counted."
    ),
    use=(
        "ranks are read while scores change",
        "pages are wanted at any depth",
        "points come from many clients at once",
    ),
    costs=(
        "about 100 bytes a player, all in memory",
        "ties go by name unless the score holds more",
        "adding boards up is linear in their players",
    ),
    avoid=(
        "the order needs many columns",
        "a score must be exact above 2^53",
    ),
)

UNIQUE_VISITORS = Words(
    lead=(
        "A HyperLogLog counts different visitors in 12 KB, however many come. It keeps "
        "no names, so its answer is near, not exact."
    ),
    use=(
        "a count within about 1 % is enough",
        "there are many counters, or many visitors",
        "days are merged into weeks",
    ),
    costs=(
        "a standard error of 0.81 %",
        "12 KB each, also for a few thousand visitors",
        "who came cannot be asked",
    ),
    avoid=(
        "money depends on the number",
        "a visitor must be removed again",
        "there are few visitors: a Set is smaller and exact",
    ),
)
