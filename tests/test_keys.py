"""The key registry: its grammar, and what it refuses."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webapp.keys import (
    FAMILIES,
    LAB,
    LEASE,
    PRODUCT,
    BadName,
    Family,
    family_of,
    key,
    slot,
    table,
)

NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", fullmatch=True)
GRAMMAR = re.compile(r"rpl:[a-z-]+:[a-z-]+:\{<[a-z ]+>\}(:<[a-z ]+>)?")
each_family = pytest.mark.parametrize(
    "family", FAMILIES, ids=lambda family: f"{family.page}-{family.part}"
)


def test_a_key_is_namespace_page_part_and_group() -> None:
    assert key("rpl", PRODUCT, 1042) == "rpl:catalog:product:{1042}"


def test_a_key_with_a_rest_ends_in_it() -> None:
    assert key("rpl", LAB, "stale-3f09ab", "copy") == (
        "rpl:catalog:lab:{stale-3f09ab}:copy"
    )


BAD = ["", " ", "a b", "a:b", "{a}", "a\n", "-a", "_a", "é", "a" * 65, "a\x00", "*"]


@pytest.mark.parametrize("name", [*BAD, -1])
def test_a_bad_group_is_refused(name: str | int) -> None:
    with pytest.raises(BadName):
        key("rpl", PRODUCT, name)


@pytest.mark.parametrize("name", BAD)
def test_a_bad_rest_is_refused(name: str) -> None:
    with pytest.raises(BadName):
        key("rpl", LAB, "run", name)


@each_family
@given(group=NAMES, rest=NAMES)
def test_the_family_of_a_key_is_the_one_it_was_built_for(
    family: Family, group: str, rest: str
) -> None:
    built = key("rpl", family, group, rest if family.rest else "")
    assert family_of("rpl", built) is family


@pytest.mark.parametrize(
    "foreign",
    [
        "other:catalog:product:{1042}",
        "rpl:catalog:product:1042",
        "rpl:catalog:product:{1042}:more",
        "rpl:catalog:lab:{run}",
        "rpl:catalog:unknown:{1}",
        "rpl:catalog:product:{}",
        "rpl",
        "",
    ],
)
def test_a_foreign_key_has_no_family(foreign: str) -> None:
    assert family_of("rpl", foreign) is None


@given(group=NAMES)
def test_a_value_and_its_lease_share_a_slot(group: str) -> None:
    assert slot(key("rpl", PRODUCT, group)) == slot(key("rpl", LEASE, group))


@given(first=NAMES, second=NAMES)
def test_keys_of_one_run_share_a_slot(first: str, second: str) -> None:
    assert slot(key("rpl", LAB, "run", first)) == slot(key("rpl", LAB, "run", second))


def test_a_slot_is_what_redis_computes() -> None:
    assert slot("rpl:catalog:product:{123456789}") == 12739  # the CRC16 check value


@each_family
def test_a_family_has_a_ttl_or_says_why_not(family: Family) -> None:
    assert bool(family.ttl_ms) != bool(family.forever_because)


@each_family
def test_the_grammar_of_a_family_is_the_one_of_the_registry(family: Family) -> None:
    assert GRAMMAR.fullmatch(family.grammar("rpl"))


def test_no_two_families_share_a_name() -> None:
    names = [(family.page, family.part, bool(family.rest)) for family in FAMILIES]
    assert len(set(names)) == len(names)


@each_family
def test_the_table_has_every_family(family: Family) -> None:
    assert f"`{family.grammar('rpl')}`" in table("rpl")
