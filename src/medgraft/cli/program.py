"""The program itself: its name, its version, and how errors become one line."""

import shlex
import sys
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console

from medgraft.errors import MedgraftError
from medgraft.version import __version__

__all__ = ["app", "console", "main", "typed"]

app = typer.Typer(
    name="medgraft",
    help="Find how much of a pretrained network a medical task needs, keep that, and prove it.",
    no_args_is_help=True,
    add_completion=False,
    # Help in groups; nothing in it is markup.
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)
# A pipe or a log file has no width; tables must not be folded there.
console = Console(width=None if sys.stdout.isatty() else 140)
_errors = Console(stderr=True)

# typer carries click under different names from release to release; this is its base of all usage errors.
_UsageError: type[Any] = typer.BadParameter.__mro__[2]


def main() -> NoReturn:
    """Run the command line; exit code 2 and one line for wrong input, 130 when interrupted."""
    try:
        code = app(standalone_mode=False)
    except MedgraftError as error:
        _fail(str(error))
    except (typer.Abort, KeyboardInterrupt):
        _errors.print("interrupted; the same command continues.", markup=False)
        sys.exit(130)
    except _UsageError as error:
        _fail(error.format_message())
    except typer.Exit as stop:
        sys.exit(stop.exit_code)
    sys.exit(code if isinstance(code, int) else 0)


def _fail(message: str) -> NoReturn:
    line = " ".join(message.split())
    _errors.print(f"medgraft: {line}", markup=False, highlight=False, soft_wrap=True)
    sys.exit(2)


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit


def typed() -> str:
    """The command line as the user typed it."""
    return shlex.join(["medgraft", *sys.argv[1:]])
