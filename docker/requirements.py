"""Prints the dependencies that pyproject.toml names, one a line: those of the given names, or with --without all the others.

So that an image installs them before the source is there, in layers of their own, and no version is written twice. Standard library only.
"""

import argparse
import re
import tomllib
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pyproject", type=Path)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--without", action="store_true")
    arguments = parser.parse_args()
    lines: list[str] = tomllib.loads(arguments.pyproject.read_text(encoding="utf-8"))["project"]["dependencies"]
    declared = {re.split(r"[^\w.-]", line)[0]: line for line in lines}
    if unknown := set(arguments.names) - set(declared):
        parser.error(f"{arguments.pyproject} has no dependency {', '.join(sorted(unknown))}")
    for name, line in declared.items():
        if (name in arguments.names) != arguments.without:
            print(line)


if __name__ == "__main__":
    main()
