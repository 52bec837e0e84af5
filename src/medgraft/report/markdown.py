"""Text from outside (class names, paths, messages) made harmless inside Markdown."""

import re
from typing import Any

__all__ = ["RawMarkdown", "escape_markdown", "indent_code"]


class RawMarkdown(str):
    """Text that is Markdown already."""

    __slots__ = ()


def escape_markdown(value: Any) -> Any:
    r"""`value` with everything escaped that Markdown or HTML would act on; line ends become spaces.

    Args:
        value: Anything that a template prints; `RawMarkdown` passes unchanged.

    Examples:
        >>> escape_markdown("<b>|a_b*")
        '&lt;b&gt;\\|a\\_b\\*'
        >>> escape_markdown("Youden's index, 0.95")
        "Youden's index, 0.95"
    """
    if not isinstance(value, str) or isinstance(value, RawMarkdown):
        return value
    text = " ".join(value.splitlines()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|~#])", r"\\\1", text)


def indent_code(value: str) -> RawMarkdown:
    """`value` as an indented code block, which no content can close.

    Args:
        value: One or more lines.

    Examples:
        >>> indent_code("medgraft fit data")
        '    medgraft fit data'
    """
    return RawMarkdown("\n".join(f"    {line}" for line in value.splitlines()))
