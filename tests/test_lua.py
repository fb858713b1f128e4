"""Every Lua file: its header says what the code does, and the code stays small."""

import hashlib
import re

import pytest

from webapp import paths
from webapp.scripts import load, parse_header

FILES = sorted(file.relative_to(paths.LUA) for file in paths.LUA.rglob("*.lua"))
MOST_LINES = 45
LANGUAGE = re.compile(
    r"and|break|do|else|elseif|end|false|for|function|if|in|local|nil|not|or|repeat"
    r"|return|then|true|until|while"
)
GIVEN = re.compile(
    r"ARGV|KEYS|cjson|cmsgpack|error|ipairs|math|next|pairs|pcall|redis|select|string"
    r"|struct|table|tonumber|tostring|type|unpack"
)
each_file = pytest.mark.parametrize("text", FILES, ids=str, indirect=True)


@pytest.fixture
def text(request: pytest.FixtureRequest) -> str:
    return (paths.LUA / request.param).read_text()


def code(text: str) -> str:
    """The text without its comments and strings."""
    return re.sub(r"--[^\n]*|'[^'\n]*'|\"[^\"\n]*\"", "", text)


def used(text: str, table: str) -> set[int]:
    return {int(n) for n in re.findall(rf"{table}\[(\d+)\]", code(text))}


def globals_of(text: str) -> set[str]:
    """Names that are neither Lua's, nor the server's, nor a local of the script."""
    bare = code(text)
    lists = re.findall(r"local (?!function)([\w, ]+)|for ([\w, ]+?) (?:=|in)", bare)
    lists += re.findall(r"function *(\w*)\(([\w, .]*)\)", bare)
    local = {
        name for pair in lists for part in pair for name in re.findall(r"\w+", part)
    }
    named = re.findall(r"(?<![\w.:])[A-Za-z_]\w*", bare)
    known = [
        name for name in named if LANGUAGE.fullmatch(name) or GIVEN.fullmatch(name)
    ]
    return set(named) - set(known) - local


def test_there_are_scripts() -> None:
    assert FILES


@each_file
def test_a_script_has_its_header(text: str) -> None:
    header = parse_header(text)
    assert header.purpose.endswith(".")
    assert header.keys
    assert header.source.startswith("https://")


@each_file
def test_a_script_is_small(text: str) -> None:
    assert len(text.splitlines()) <= MOST_LINES


@each_file
def test_the_header_declares_the_keys_and_arguments_that_are_used(text: str) -> None:
    header = parse_header(text)
    assert used(text, "KEYS") == set(range(1, len(header.keys) + 1))
    assert used(text, "ARGV") == set(range(1, len(header.args) + 1))


@each_file
def test_keys_and_arguments_are_bound_to_locals_first(text: str) -> None:
    lines = [line for line in code(text).splitlines() if line.strip()]
    bindings = [line for line in lines if "KEYS[" in line or "ARGV[" in line]
    assert lines[: len(bindings)] == bindings
    assert all(line.startswith("local ") for line in bindings)


@each_file
def test_a_script_names_no_global(text: str) -> None:
    assert globals_of(text) == set()


@each_file
def test_a_script_does_not_search_the_keyspace(text: str) -> None:
    assert not re.search(r"'(KEYS|SCAN)'", text)


@pytest.mark.parametrize("file", FILES, ids=str)
def test_a_script_is_known_by_the_sha_of_its_file(file: object) -> None:
    script = load(str(file).removesuffix(".lua"))
    assert script.sha == hashlib.sha1((paths.LUA / str(file)).read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("lua", "found"),
    [
        ("total = 1", {"total"}),
        ("local a = 1\na = b", {"b"}),
        ("function add(x) return x end", set()),
        ("local a, b = 1, 2\nfor i = a, b do redis.call('GET', i) end", set()),
        ("local t = {}\nt.name = os.time()", {"os"}),
    ],
)
def test_the_search_for_globals_finds_them(lua: str, found: set[str]) -> None:
    assert globals_of(lua) == found


HEADER = """\
-- Count.
--
-- KEYS[1]  counter  string
-- ARGV[1]  step     number
--
-- Returns  the count
-- Atomic   one command
-- Source   https://redis.io/docs/latest/commands/incrby/
"""


def test_a_header_tells_keys_arguments_and_the_rest() -> None:
    header = parse_header(HEADER)
    assert header.purpose == "Count."
    assert header.keys == ("counter  string",)
    assert header.args == ("step     number",)
    assert (header.returns, header.atomic) == ("the count", "one command")


@pytest.mark.parametrize("section", ["Returns", "Atomic", "Source"])
def test_a_header_without_a_section_is_refused(section: str) -> None:
    lines = [
        line for line in HEADER.splitlines() if not line.startswith(f"-- {section}")
    ]
    with pytest.raises(ValueError, match=section):
        parse_header("\n".join(lines))


def test_a_header_with_keys_out_of_order_is_refused() -> None:
    with pytest.raises(ValueError, match="out of order"):
        parse_header(HEADER.replace("KEYS[1]", "KEYS[2]"))
