"""The command line: parses, calls one library function, prints."""

from medgraft.cli.commands import app, main

__all__ = ["app", "main"]
