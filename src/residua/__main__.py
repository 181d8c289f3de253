"""`python -m residua` is the command line."""

from residua.cli import main

main()
