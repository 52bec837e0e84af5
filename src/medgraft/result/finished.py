"""Results on disk: read back only where the same version of their schema wrote them."""

from pathlib import Path
from typing import Any

from medgraft.errors import RunError
from medgraft.files import read_json

__all__ = ["read_finished"]


def read_finished(folder: Path, name: str, schema: int, made_by: str) -> dict[str, Any]:
    """What stands in the result file `name` of a finished job.

    Args:
        folder: The job's folder.
        name: The file's name.
        schema: Number of the schema that this version reads.
        made_by: The command that writes it.

    Raises:
        RunError: It is not there, broken, or of another schema.
    """
    if not (folder / name).is_file():
        raise RunError(
            f"expected a finished run with {name}, got {folder}. Give the folder of a finished "
            f"`medgraft {made_by}`, or run it again: it continues where it stopped."
        )
    stored: Any = read_json(folder / name)
    if not isinstance(stored, dict):
        raise RunError(f"expected a JSON object in {folder / name}, got {type(stored).__name__}. Run {made_by} again.")
    if stored.get("schema") != schema:
        raise RunError(
            f"expected {name} of schema {schema}, got {stored.get('schema')!r}. Another version wrote it: {made_by} "
            "again with this one, or read it with that one."
        )
    return {key: value for key, value in stored.items() if key != "schema"}
