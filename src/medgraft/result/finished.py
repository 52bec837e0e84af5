"""Results on disk: read back only where the same version of their schema wrote them."""

from pathlib import Path
from typing import Any

from medgraft.errors import RunError
from medgraft.files import read_json

__all__ = ["read_finished"]


def read_finished(folder: Path, name: str, schema: int) -> dict[str, Any]:
    """What stands in the result file `name` of a finished job.

    Args:
        folder: The job's folder.
        name: The file's name.
        schema: Number of the schema that this version reads.

    Raises:
        RunError: It is not there, broken, or of another schema.
    """
    if not (folder / name).is_file():
        raise RunError(f"expected a finished job with {name}, got {folder}. Run it again: it continues.")
    stored: Any = read_json(folder / name)
    if not isinstance(stored, dict):
        raise RunError(f"expected a JSON object in {folder / name}, got {type(stored).__name__}. Run the step again.")
    if stored.get("schema") != schema:
        raise RunError(
            f"expected {name} of schema {schema}, got {stored.get('schema')!r}. Another version wrote it: run the step "
            "again with this one, or read it with that one."
        )
    return {key: value for key, value in stored.items() if key != "schema"}
