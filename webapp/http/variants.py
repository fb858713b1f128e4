"""The ways to keep the catalog's copies right: each a room, chosen by `?variant=`."""

from collections.abc import Sequence
from pathlib import Path

import msgspec
from flask import request

import webapp.patterns.bloom_filter as bloom_filter
import webapp.patterns.cache_aside as cache_aside
import webapp.patterns.response_cache as response_cache
import webapp.patterns.tag_invalidation as tag_invalidation
import webapp.patterns.write_through as write_through
from webapp import words
from webapp.experiments import Experiment
from webapp.experiments.bloom_filter import EXPERIMENTS as OF_BLOOM_FILTER
from webapp.experiments.cache_aside import EXPERIMENTS as OF_CACHE_ASIDE
from webapp.experiments.response_cache import EXPERIMENTS as OF_RESPONSE_CACHE
from webapp.experiments.stampede import EXPERIMENTS as OF_STAMPEDE
from webapp.experiments.tag_invalidation import EXPERIMENTS as OF_TAG_INVALIDATION
from webapp.experiments.write_through import EXPERIMENTS as OF_WRITE_THROUGH
from webapp.http import sources
from webapp.http.errors import Problem
from webapp.patterns.stampede import locked_flight


class Variant(msgspec.Struct, frozen=True):
    name: str  # in the URL
    label: str  # on its tab
    lede: str
    note: str  # what it costs, or how it goes with the others
    words: words.Words
    experiments: tuple[Experiment, ...]
    files: tuple[sources.File, ...]

    @property
    def in_url(self) -> str | None:
        """What links carry; the first one needs nothing."""
        return None if self is VARIANTS[0] else self.name


_READING = sources.python(Path(cache_aside.__file__), start="class CacheAside")
_SCRIPTS = sources.lua("cache_aside/fetch"), sources.lua("cache_aside/store")
_STAMPEDE = Path(locked_flight.__file__).parent

VARIANTS: tuple[Variant, ...] = (
    Variant(
        name="cache-aside",
        label="Cache-aside",
        lede="Cache-aside: read Redis first, fall back to the database, keep a copy "
        "with a TTL.",
        note="",
        words=words.CACHE_ASIDE,
        experiments=OF_CACHE_ASIDE,
        files=(_READING, *_SCRIPTS),
    ),
    Variant(
        name="write-through",
        label="Write-through",
        lede="Write-through: an edit stores the new page in Redis, unless a newer "
        "version is there.",
        note="An edit pays for the page's queries, and for one round trip to store it.",
        words=words.WRITE_THROUGH,
        experiments=OF_WRITE_THROUGH,
        files=(
            sources.python(Path(write_through.__file__), start="class WriteThrough"),
            sources.lua("write_through/write"),
            _READING,
            *_SCRIPTS,
        ),
    ),
    Variant(
        name="tag-invalidation",
        label="Tag invalidation",
        lede="Tag invalidation: each copy is registered with its category, and a "
        "category is deleted as a whole.",
        note="A copy from another tab is not registered, so it is no hit here.",
        words=words.TAG_INVALIDATION,
        experiments=OF_TAG_INVALIDATION,
        files=(
            sources.python(
                Path(tag_invalidation.__file__), start="class TagInvalidation"
            ),
            _READING,
            *_SCRIPTS,
        ),
    ),
    Variant(
        name="stampede",
        label="Stampede",
        lede="Stampede protection: when a popular value ends, many miss it at once, "
        "and few of them load it.",
        note="Each product here is loaded under a lock; the others who miss it wait.",
        words=words.STAMPEDE,
        experiments=OF_STAMPEDE,
        files=(
            sources.python(_STAMPEDE / "locked_flight.py", start="class LockedFlight"),
            sources.lua("stampede/fetch"),
            sources.lua("stampede/store"),
            *(
                sources.python(_STAMPEDE / f"{module}.py", start=start)
                for module, start in (
                    ("single_flight", "class SingleFlight"),
                    ("stale_while_revalidate", "class StaleWhileRevalidate"),
                    ("early_expiry", "class EarlyExpiry"),
                    ("unprotected", "class Unprotected"),
                    ("_copies", "def look"),
                )
            ),
        ),
    ),
    Variant(
        name="response-cache",
        label="Response cache",
        lede="Response cache: answers of the API are kept by their parameters, and an "
        "edit makes all of them void.",
        note="Every edit, wherever it is made, voids all lists of products.",
        words=words.RESPONSE_CACHE,
        experiments=OF_RESPONSE_CACHE,
        files=(
            sources.python(Path(response_cache.__file__), start="class ResponseCache"),
            _READING,
            *_SCRIPTS,
        ),
    ),
    Variant(
        name="bloom-filter",
        label="Bloom filter",
        lede="Bloom filter: an id that no product has is answered by a few bits, and "
        "never reaches the database.",
        note="Every read asks the filter first: one round trip more.",
        words=words.BLOOM_FILTER,
        experiments=OF_BLOOM_FILTER,
        files=(
            sources.python(Path(bloom_filter.__file__), start="class BloomFilter"),
            sources.lua("bloom_filter/add"),
            _READING,
            *_SCRIPTS,
        ),
    ),
)
_BY_NAME = {variant.name: variant for variant in VARIANTS}
EXPERIMENTS: Sequence[Experiment] = [e for v in VARIANTS for e in v.experiments]


def chosen() -> Variant:
    """The one that the URL names. Raises Problem 404."""
    name = request.args.get("variant", VARIANTS[0].name)
    if name not in _BY_NAME:
        raise Problem(404, "No such variant", f"One of {', '.join(_BY_NAME)}.")
    return _BY_NAME[name]


def of_experiment(name: str) -> Variant:
    """The one whose Break it card that is; the first where there is none."""
    found = (v for v in VARIANTS if name in {e.name for e in v.experiments})
    return next(found, VARIANTS[0])
