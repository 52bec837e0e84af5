"""Templates, and how their values are escaped."""

import functools

import jinja2

from medgraft.report.markdown import escape_markdown, indent_code

__all__ = ["environment"]


@functools.cache
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
