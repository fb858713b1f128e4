"""The running source, read once at start, with badges that match the tape."""

import re
from collections.abc import Iterable
from pathlib import Path

import msgspec
from markupsafe import Markup
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import LuaLexer, PythonLexer

from webapp import paths
from webapp.http.tape import Receipt

_PACKAGE = Path(paths.__file__).parent
_CALL = re.compile(r"redis\.p?call\('(\w+)'")


class Line(msgspec.Struct, frozen=True):
    number: int
    html: Markup
    call: str = ""  # the command a Lua line sends


class File(msgspec.Struct, frozen=True):
    """One source file, or the part of it that is worth showing."""

    language: str  # "Python", "Lua"
    file: str  # "webapp/patterns/cache_aside.py"
    note: str
    text: str  # what Copy copies
    lines: tuple[Line, ...]


class ShownLine(msgspec.Struct):
    number: int
    html: Markup
    refs: list[str]  # numbers of tape rows, "db" for a query
    hit: bool


class Source(msgspec.Struct):
    language: str
    file: str
    note: str
    text: str
    lines: list[ShownLine]


def python(module: Path, *, start: str) -> File:
    """A pattern's file from its first line that begins with `start`."""
    lines = module.read_text().splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith(start))
    shown = "\n".join(lines[first:])
    html = _highlighted(shown, PythonLexer())
    numbered = tuple(Line(first + i + 1, h) for i, h in enumerate(html))
    file = module.relative_to(_PACKAGE.parent).as_posix()
    return File("Python", file, "Numbers match the tape", shown, numbered)


def lua(name: str) -> File:
    text = (paths.LUA / f"{name}.lua").read_text().rstrip()
    html = _highlighted(text, LuaLexer())
    numbered = tuple(
        Line(i + 1, h, _command(line))
        for i, (h, line) in enumerate(zip(html, text.splitlines(), strict=True))
    )
    return File(
        "Lua", f"lua/{name}.lua", "Runs as one step on the server", text, numbered
    )


def with_badges(files: Iterable[File], receipt: Receipt | None) -> list[Source]:
    """The files as the code tab shows them: which lines a receipt came from."""
    sent = _python_refs(receipt) if receipt else {}
    ran = _lua_refs(receipt) if receipt else {}
    return [_shown(file, sent, ran) for file in files]


def _shown(
    file: File, sent: dict[str, list[str]], ran: dict[str, list[tuple[str, str]]]
) -> Source:
    rest = list(ran.get(file.file.removeprefix("lua/").removesuffix(".lua"), ()))
    name = file.file.rpartition("/")[2]
    lines = []
    for line in file.lines:
        refs = list(sent.get(f"{name}:{line.number}", ()))
        if line.call and rest and rest[0][1] == line.call:
            refs.append(rest.pop(0)[0])
        lines.append(ShownLine(line.number, line.html, refs, bool(refs)))
    return Source(file.language, file.file, file.note, file.text, lines)


def _python_refs(receipt: Receipt) -> dict[str, list[str]]:
    """From "cache_aside.py:117" to the rows that this line sent."""
    refs: dict[str, list[str]] = {}
    for trip in receipt.trips:
        for command in trip.commands:
            if command.source:
                refs.setdefault(command.source, []).append(str(command.n))
    for query in receipt.sql:
        if query.source and "db" not in refs.setdefault(query.source, []):
            refs[query.source].append("db")
    return refs


def _lua_refs(receipt: Receipt) -> dict[str, list[tuple[str, str]]]:
    """From a script's name to (row, command) for each call seen inside it."""
    refs: dict[str, list[tuple[str, str]]] = {}
    for trip in receipt.trips:
        for command in trip.commands:
            if command.script:
                calls = [(str(command.n), call.name) for call in command.script.calls]
                refs.setdefault(command.script.name, []).extend(calls)
    return refs


def _highlighted(text: str, lexer: PythonLexer | LuaLexer) -> list[Markup]:
    html = highlight(text, lexer, HtmlFormatter(nowrap=True))
    return [Markup(line) for line in html.rstrip("\n").split("\n")]  # noqa: S704


def _command(line: str) -> str:
    found = _CALL.search(line)
    return found[1] if found else ""
