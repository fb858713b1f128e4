"""The Lua loader: one frozen LuaScript a file, its header parsed and held true.

A call is EVALSHA, and EVAL only when the server does not know the script. With
"See inside Lua" on, a variant runs in which a local `redis` notes every call and
reply, so that the tape shows what really ran.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import redis
from redis.exceptions import NoScriptError

from webapp import paths
from webapp.connection import recorder

_HEADER_LINE = re.compile(r"-- (KEYS|ARGV)\[(\d+)\]\s+(.+)")
_SECTION = re.compile(r"-- (Returns|Atomic|Source)\s+(.+)")

_WATCH = """\
local seen, server = {}, redis
local function watched(send)
  return function(...)
    local reply = send(...)
    seen[#seen + 1] = {{...}, reply}
    return reply
  end
end
local redis = setmetatable(
  {call = watched(server.call), pcall = watched(server.pcall)}, {__index = server})
local function script()
"""
_WATCH_END = """
end
local reply = script()
if reply == nil then reply = false end
return {seen, reply}
"""

SCRIPTS: dict[str, "LuaScript"] = {}  # by SHA-1, watched variants included


class WrongCount(TypeError):
    """A script called with another number of keys or arguments than it declares."""


@dataclass(frozen=True)
class Header:
    purpose: str
    keys: tuple[str, ...]  # one description a key
    args: tuple[str, ...]  # one description an argument
    returns: str
    atomic: str
    source: str


@dataclass(frozen=True)
class LuaScript:
    name: str  # "cache_aside/fetch"
    text: str = field(repr=False)
    sha: str
    watched: str = field(repr=False)  # the variant for See inside Lua
    watched_sha: str = field(repr=False)
    header: Header = field(repr=False)

    def __call__(
        self, client: redis.Redis, keys: Sequence[str], args: Sequence[Any] = ()
    ) -> Any:
        """Run it as one step on the server. Raises WrongCount if it does not fit."""
        self._check(keys, args)
        sink = recorder.current()
        if sink is not None and sink.see_inside:
            return self._watched(client, keys, args)
        return _evaluate(client, self.sha, self.text, keys, args)

    def queue(self, multi: Any, keys: Sequence[str], args: Sequence[Any] = ()) -> None:
        """Queue it in a pipeline, as EVAL: there, nobody could repeat an EVALSHA.

        Raises WrongCount.
        """
        self._check(keys, args)
        multi.eval(self.text, len(keys), *keys, *args)

    def _check(self, keys: Sequence[str], args: Sequence[Any]) -> None:
        """Keys at the end whose description says "optional" may be left out."""
        most = len(self.header.keys)
        least = sum("optional" not in key for key in self.header.keys)
        if least <= len(keys) <= most and len(args) == len(self.header.args):
            return
        raise WrongCount(
            f"{self.name} takes {most} keys and {len(self.header.args)} arguments, "
            f"not {len(keys)} and {len(args)}"
        )

    def _watched(
        self, client: redis.Redis, keys: Sequence[str], args: Sequence[Any]
    ) -> Any:
        reply = _evaluate(client, self.watched_sha, self.watched, keys, args)
        seen, result = reply
        if (command := recorder.last_command()) is not None:
            command.reply = result
            command.calls = [
                recorder.InnerCall(tuple(call[0]), call[1] if len(call) > 1 else None)
                for call in seen
            ]
        return result


def load(name: str) -> LuaScript:
    """Read `lua/<name>.lua`, parse its header, and register its SHA."""
    text = (paths.LUA / f"{name}.lua").read_text()
    watched = f"{_WATCH}{text}{_WATCH_END}"
    script = LuaScript(
        name, text, _sha(text), watched, _sha(watched), parse_header(text)
    )
    SCRIPTS[script.sha] = SCRIPTS[script.watched_sha] = script
    return script


def preload(client: redis.Redis) -> None:
    """Tell a server all scripts, so that the first call is one round trip too."""
    pipeline = client.pipeline(transaction=False)
    for script in set(SCRIPTS.values()):
        pipeline.script_load(script.text)
        pipeline.script_load(script.watched)
    pipeline.execute()


def parse_header(text: str) -> Header:
    """Read the comment block at the top. Raises ValueError if a part is missing."""
    block = text.split("\n\n", 1)[0].splitlines()
    declared: dict[str, list[str]] = {"KEYS": [], "ARGV": []}
    sections: dict[str, str] = {}
    for line in block:
        if found := _HEADER_LINE.fullmatch(line):
            declared[found[1]].append(found[3])
            if int(found[2]) != len(declared[found[1]]):
                raise ValueError(f"{found[1]}[{found[2]}] is out of order")
        elif found := _SECTION.fullmatch(line):
            sections[found[1]] = found[2]
    purpose = " ".join(line.removeprefix("-- ") for line in block[: block.index("--")])
    if missing := {"Returns", "Atomic", "Source"} - sections.keys():
        raise ValueError(f"the header lacks {', '.join(sorted(missing))}")
    return Header(
        purpose,
        tuple(declared["KEYS"]),
        tuple(declared["ARGV"]),
        sections["Returns"],
        sections["Atomic"],
        sections["Source"],
    )


def _evaluate(
    client: redis.Redis, sha: str, text: str, keys: Sequence[str], args: Sequence[Any]
) -> Any:
    try:
        return client.evalsha(sha, len(keys), *keys, *args)
    except NoScriptError:
        return client.eval(text, len(keys), *keys, *args)


def _sha(text: str) -> str:
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
