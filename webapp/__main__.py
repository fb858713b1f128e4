"""The command line: python -m webapp."""

import argparse
import sys

from webapp import keys, launcher
from webapp.connection.sets import SETS
from webapp.settings import Settings, SettingsError, from_environ


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
    asked = parser.parse_args()
    try:
        settings = from_environ()
    except SettingsError as error:
        print(error, file=sys.stderr)
        return 2
    if asked.command == "serve":
        return launcher.serve(settings, set_kind=asked.set)
    return _COMMANDS[asked.command](settings)


def _print_keys(settings: Settings) -> int:
    print(keys.table(settings.namespace))
    return 0


def _seed(settings: Settings) -> int:
    try:
        filled = launcher.fill_database(settings, check=lambda: None)
    except KeyboardInterrupt:
        return 130
    if not filled:
        print("The shop's database is already filled.")
    return 0


_COMMANDS = {"keys": _print_keys, "seed": _seed}

if __name__ == "__main__":
    sys.exit(main())
