"""Templates to text, and text to a file that is there whole or not at all."""

from pathlib import Path

import jinja2

from medgraft.errors import RunError
from medgraft.report.markdown import escape_markdown, indent_code

__all__ = ["environment", "write_whole"]


def environment(*, is_html: bool) -> jinja2.Environment:
    """Where templates come from and how their values are escaped: as HTML or as Markdown."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("medgraft.report"),
        autoescape=is_html,
        finalize=None if is_html else escape_markdown,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["code"] = indent_code
    return environment


def write_whole(path: Path, text: str) -> Path:
    """`path`, after writing `text` to it.

    Raises:
        RunError: It cannot be written.
    """
    partial = path.with_name(f"{path.name}.partial")
    try:
        partial.write_text(text, encoding="utf-8", newline="\n")
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise RunError(
            f"expected a folder to write {path} into, got: {error}. Check its permissions and space."
        ) from error
    return path
