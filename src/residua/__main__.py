"""`residua` and `python -m residua`: the command line, which may be interrupted at any moment."""

from __future__ import annotations

import sys


def main() -> None:
    """Import the command line and run it."""
    try:
        from residua.cli import main

        main()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
