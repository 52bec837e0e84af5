"""The command line: parses, calls one library function, prints."""

from medgraft.cli import commands, lookups, weights
from medgraft.cli.program import app, main

__all__ = ["app", "commands", "lookups", "main", "weights"]
