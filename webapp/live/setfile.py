"""The local set that the launcher started, told to the web server in a file."""

from pathlib import Path

import msgspec

_FILE = "set.json"


class SetFile(msgspec.Struct, frozen=True):
    url: str
    pids: dict[str, int]  # by address, "127.0.0.1:7001"


def write_set(instance: Path, told: SetFile) -> None:
    draft = instance / f"{_FILE}.new"
    draft.write_bytes(msgspec.json.encode(told))
    draft.replace(instance / _FILE)


def read_set(instance: Path, url: str) -> SetFile | None:
    """The set behind this URL, if the launcher started it."""
    try:
        told = msgspec.json.decode((instance / _FILE).read_bytes(), type=SetFile)
    except (OSError, msgspec.MsgspecError):
        return None
    return told if told.url == url else None
