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

WRITE_THROUGH = Words(
    lead=(
        "An edit writes the database, then stores the new value in Redis. The next "
        "reader finds it there. A version keeps an older value from replacing a newer "
        "one."
    ),
    use=(
        "what is written is read again soon",
        "the reader after an edit must not wait for the database",
        "rows have a version that grows with each write",
    ),
    costs=(
        "each edit pays for the whole value, also where nobody reads it",
        "a crash between database and cache needs an outbox",
        "a value that is not there is left to the next reader",
    ),
    avoid=(
        "writes far outnumber reads",
        "every read must see the last write: this is no strong consistency",
    ),
)

TAG_INVALIDATION = Words(
    lead=(
        "Each reader that leaves a copy first writes its key into the Set of its "
        "category. When the whole category changes, the Set says what to delete."
    ),
    use=(
        "one change makes many copies wrong at once",
        "nobody but the readers knows which copies there are",
        "deleting by pattern would scan the whole keyspace",
    ),
    costs=(
        "a miss takes a third round trip",
        "the Set must outlive its members, on a server that evicts nothing",
        "invalidating takes longer the more members there are",
    ),
    avoid=(
        "copies are few and their keys known",
        "a short TTL is good enough",
    ),
)

RATE_LIMITER = Words(
    lead=(
        "A client may ask so often in a span of time. A fixed window keeps one counter "
        "that ends with its TTL. A sliding window log keeps the time of each admitted "
        "request, and counts the recent ones."
    ),
    use=(
        "fixed window: twice the limit around an edge does no harm",
        "sliding window log: the limit must hold in every span",
        "several processes must agree on one count",
    ),
    costs=(
        "one round trip a request",
        "fixed window: about 100 bytes a client",
        "sliding window log: 26 bytes a request, and 100 where the limit is above 128",
    ),
    avoid=(
        "the limit is in the tens of thousands: a log of it is large",
        "a limit in each process is exact enough",
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

BLOOM_FILTER = Words(
    lead=(
        "Each id sets a few bits of a bitmap. Where one of its bits is 0, an id was "
        "never added, and nobody needs to look for it. Where all are 1, it probably "
        "was."
    ),
    use=(
        "many ask for what does not exist",
        "looking for it is dear",
        "now and then a look for nothing does no harm",
    ),
    costs=(
        "about 10 bits an id, for 1 % that pass",
        "a round trip before each read",
        "a build that reads every id, each day",
    ),
    avoid=(
        "ids are deleted often",
        "nobody asks for what does not exist",
    ),
)

SESSION_STORE = Words(
    lead=(
        "The browser holds a random id and nothing else. Who it stands for lies in "
        "Redis, where it can be changed, listed and ended at any time."
    ),
    use=(
        "sign-out must work at once, on every device",
        "several servers must agree on who is signed in",
        "sessions must end by themselves",
    ),
    costs=(
        "one round trip for each request that asks who it is",
        "without Redis nobody is known: it fails closed",
        "memory for each signed-in device, on a server that evicts nothing",
    ),
    avoid=(
        "a visitor needs no state: then start no session",
        "the state is large: keep an id to it instead",
    ),
)

DISTRIBUTED_LOCK = Words(
    lead=(
        "Whoever sets the key first holds the lock, until it is released or its lease "
        "ends. Each holder gets a higher number than the one before, and what is "
        "written under an older number is refused."
    ),
    use=(
        "a job must run once, whoever starts it",
        "several servers write to what cannot check by itself",
        "work that is done twice is dear, though not wrong",
    ),
    costs=(
        "two round trips for each piece of work, and waiting for others",
        "a lease that is too short ends while its holder works",
        "without Redis nobody gets the lock: it fails closed",
    ),
    avoid=(
        "one command or script can do it: that is faster, and needs no lease",
        "the database can refuse the second write by itself",
        "the resource cannot check a number, and a late write does harm",
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

ACTIVITY_FEED = Words(
    lead=(
        "A list keeps what somebody did last, the newest in front. Each entry is an "
        "id. What is over the cap falls off at the end, in the same step."
    ),
    use=(
        "only the newest entries are ever looked at",
        "many write, and a page reads a few of them",
        "what an entry is about changes after it was written",
    ),
    costs=(
        "what was trimmed is gone",
        "showing ids takes a query for what they stand for",
        "finding an entry walks the list: keep it short",
    ),
    avoid=(
        "the history must be whole: write it to the database",
        "entries are asked for by time or kind: use a stream or a sorted set",
        "a push must reach thousands of lists at once",
    ),
)

TRANSACTIONS = Words(
    lead=(
        "Several commands become one step: MULTI queues them, WATCH lets EXEC fail if "
        "what was seen has changed, and a script looks and writes on the server."
    ),
    use=(
        "MULTI: the commands do not depend on what others answer",
        "WATCH: what decides is in the application, and rivals are few",
        "a script: look first, then write, at any load",
    ),
    costs=(
        "all other clients wait while a script or an EXEC runs",
        "WATCH takes three round trips a try, and more tries the more rivals",
        "nothing is rolled back: let the command that may fail come first",
    ),
    avoid=(
        "the keys lie in different slots of a Cluster",
        "the step is long, or asks another system",
        "one command does it: INCRBY, SET NX, GETDEL",
    ),
)
