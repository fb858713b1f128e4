"""The command line: python -m webapp."""

import argparse
import re
import sys

from webapp.connection.sets import SETS
from webapp.settings import Settings, SettingsError, from_environ

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m webapp", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    serving = commands.add_parser("serve", help="run the app")
    serving.add_argument(
        "--set",
        choices=SETS,
        help="on a local set of servers that is started with it",
    )
    commands.add_parser("keys", help="print every family of keys")
    commands.add_parser("seed", help="fill the shop's database if it is empty")
    worker = commands.add_parser("worker", help="handle orders beside a running app")
    worker.add_argument(
        "--group", choices=("billing", "analytics"), default="billing", help="billing"
    )
    worker.add_argument("--name", type=_name, help="host and process id")
    asked = parser.parse_args()
    try:
        settings = from_environ()
    except SettingsError as error:
        print(error, file=sys.stderr)
        return 2
    return _COMMANDS[asked.command](settings, asked)


def _name(text: str) -> str:
    if _NAME.fullmatch(text):
        return text
    raise argparse.ArgumentTypeError("letters, digits, - and _, at most 64")


# Each command imports what it needs: a worker starts without the web server's part.


def _serve(settings: Settings, asked: argparse.Namespace) -> int:
    from webapp import launcher

    return launcher.serve(settings, set_kind=asked.set)


def _work(settings: Settings, asked: argparse.Namespace) -> int:
    from webapp import worker

    if settings.redis_urls["durable"].startswith("fake:"):
        print("A worker needs a Redis server that it can reach.", file=sys.stderr)
        return 2
    return worker.run(settings, group=asked.group, name=asked.name)


def _print_keys(settings: Settings, _: argparse.Namespace) -> int:
    from webapp import keys

    print(keys.table(settings.namespace))
    return 0


def _seed(settings: Settings, _: argparse.Namespace) -> int:
    from webapp import launcher

    try:
        filled = launcher.fill_database(settings, check=lambda: None)
    except KeyboardInterrupt:
        return 130
    if not filled:
        print("The shop's database is already filled.")
    return 0


_COMMANDS = {"serve": _serve, "keys": _print_keys, "seed": _seed, "worker": _work}

if __name__ == "__main__":
    sys.exit(main())
