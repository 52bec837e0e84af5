"""What may leave the machine instead of a person's name: pseudonyms keyed by a secret that stays here."""

import csv
import hashlib
import hmac
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from medgraft.errors import RunError
from medgraft.files import replacing, write_once
from medgraft.machine import home

__all__ = ["case_name", "keep_names", "pseudonym"]


_KEY_BYTES: Final = 32
_PRIVATE: Final = 0o600


def pseudonym(identity: str) -> str:
    """A keyed pseudonym of a patient; the key stays on this machine, outside every run folder.

    Raises:
        RunError: The key cannot be kept.
    """
    return "p" + _keyed(identity)[:12]


def case_name(path: str) -> str:
    """A keyed pseudonym of a DICOM file or series: their paths are full of names and identifiers.

    Args:
        path: Path of the file or series.

    Raises:
        RunError: The key cannot be kept.
    """
    return "case-" + _keyed(path)[:16]


def keep_names(root: Path, files: Mapping[str, Sequence[str]]) -> Path:
    """Write which pseudonym is which file beside the key, for this user's eyes; returns where.

    Args:
        root: Root of the cohort.
        files: Pseudonym to paths.

    Raises:
        RunError: It cannot be written.
    """
    path = home() / "names" / f"{hashlib.sha256(str(root).encode(errors='surrogateescape')).hexdigest()[:16]}.csv"
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        names: dict[str, str] = {}
        if path.exists():
            with path.open(newline="", encoding="utf-8", errors="surrogateescape") as stream:
                names = {row["file"]: row["case"] for row in csv.DictReader(stream)}
        # Names that other tables on the same folder made stay.
        names |= {file: name for name, members in files.items() for file in members}
        rows = [("case", "file"), *sorted((name, file) for file, name in names.items())]
        with (
            replacing(path, mode=_PRIVATE) as temporary,
            temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape") as stream,
        ):
            csv.writer(stream).writerows(rows)
    except OSError as error:
        raise RunError(f"could not keep the names of cases in {path}: {error.strerror}. Set MEDGRAFT_HOME.") from error
    return path


def _keyed(text: str) -> str:
    path = home() / "pseudonym.key"
    try:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_once(path, secrets.token_hex(_KEY_BYTES), mode=_PRIVATE)
        key = path.read_text()
    except OSError as error:
        raise RunError(f"could not keep the pseudonym key in {path}: {error.strerror}. Set MEDGRAFT_HOME.") from error
    if len(key) != 2 * _KEY_BYTES:
        raise RunError(
            f"expected a key of {2 * _KEY_BYTES} characters in {path}, got {len(key)}. Restore or remove it."
        )
    return hmac.new(key.encode(), text.encode(errors="surrogateescape"), hashlib.sha256).hexdigest()
