"""The command line: one thin module for each family of verbs, wired to `mien.api`."""

from mien.cli.program import main

__all__ = ["main"]
