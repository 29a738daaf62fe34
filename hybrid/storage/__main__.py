"""`python -m kfp_hybrid.storage download URI PATH` and `upload PATH URI`, for init containers and workers.

Exit status: 0 done, 1 with one line on standard error, 143 stopped by SIGTERM.
"""

import argparse

from kfp_hybrid import storage
from kfp_hybrid.step import step


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m kfp_hybrid.storage", description=storage.__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    commands = parser.add_subparsers(dest="command", required=True)
    for name, words in (("download", ("uri", "path")), ("upload", ("path", "uri"))):
        command = commands.add_parser(name, help=f"{name} an object or a folder; what is there already is left")
        for word in words:
            command.add_argument(word)
    given = parser.parse_args()
    with step():
        if given.command == "download":
            print(storage.download(given.uri, given.path))
        else:
            print(storage.upload(given.path, given.uri))


if __name__ == "__main__":
    main()
