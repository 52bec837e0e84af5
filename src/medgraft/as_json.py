"""Frozen values as plain JSON types, and back."""

import dataclasses
import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np

from medgraft.errors import RunError

__all__ = ["from_json", "to_json"]

if TYPE_CHECKING:
    # It takes a third of a second to import, and who asks where a network can be cut reads nothing back.
    from pydantic import TypeAdapter

T = TypeVar("T")


def to_json(value: Any) -> Any:
    """`value` as plain JSON types; dataclasses become dictionaries, paths and NumPy scalars their builtins.

    Classes and functions, which networks take as arguments, become what Python calls them.

    Examples:
        >>> from medgraft.types import BlockPlan
        >>> to_json(BlockPlan(name="layer1", treatment="frozen", lr=0.0, num_params=3))
        {'name': 'layer1', 'treatment': 'frozen', 'lr': 0.0, 'num_params': 3}
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_json(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [to_json(item) for item in value]
    if isinstance(value, np.ndarray):
        return to_json(value.tolist())
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Path):
        return value.as_posix()
    return repr(value) if callable(value) else value


def from_json(kind: type[T], value: Any) -> T:
    """The value of the dataclass `kind` that `to_json` made into `value`, whatever is nested in it.

    Keys that the dataclass does not have are left alone: a newer version may have written them.

    Args:
        kind: A dataclass.
        value: Plain JSON types.

    Raises:
        RunError: `value` is no such thing; the message names the field.

    Examples:
        >>> from medgraft.types import ImageFacts
        >>> facts = ImageFacts(height=2, width=3, channels=1, bits=8, mode="L")
        >>> from_json(ImageFacts, to_json(facts)) == facts
        True
    """
    from pydantic import ValidationError

    try:
        instance: T = _adapter(cast("Any", kind)).validate_python(value)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise RunError(
            f"expected a {kind.__name__} as this version writes it, got {first['msg'].lower()} at "
            f"{field or 'the top'}. Was it written by another version, or by hand?"
        ) from error
    return instance


@functools.cache
def _adapter(kind: Any) -> "TypeAdapter[Any]":
    from pydantic import TypeAdapter

    return TypeAdapter(kind)
