"""The command line: parses, calls one library function, prints."""

from medgraft.cli import commands, comparisons, lookups, weights
from medgraft.cli.program import app, main

__all__ = ["app", "commands", "comparisons", "lookups", "main", "weights"]
