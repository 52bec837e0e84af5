"""The command line: parses, calls one library function, prints."""

from medgraft.cli import commands, looking
from medgraft.cli.program import app, main

__all__ = ["app", "commands", "looking", "main"]
