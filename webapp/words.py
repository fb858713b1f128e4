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

PUB_SUB = Words(
    lead=(
        "PUBLISH hands a message to everyone who is subscribed at this moment, and "
        "then forgets it. Each process subscribes once and passes messages on to its "
        "browsers. A capped stream keeps them for who was away."
    ),
    use=(
        "news is worth most at once: feeds, presence, cache invalidation",
        "many listeners hear the same message",
        "a lost message is no harm, or a stream keeps it",
    ),
    costs=(
        "a connection for each subscriber",
        "a listener must join again after every loss",
        "slow readers are cut off by the server",
    ),
    avoid=(
        "each message is work that must be done: use a stream with a consumer group",
        "listeners are away for longer than the stream reaches back",
    ),
)
