"""What may leave the machine instead of a person's name: pseudonyms keyed by a secret that stays here."""

import contextlib
import csv
import hashlib
import hmac
import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from medgraft.config import home
from medgraft.errors import RunError

__all__ = ["case_name", "keep_names", "pseudonym"]


_KEY_BYTES: Final = 32


def pseudonym(identity: str) -> str:
    """A keyed pseudonym of a patient; the key stays on this machine, outside every run folder.

    Raises:
        RunError: The key cannot be kept.
    """
    return "p" + _keyed(identity)[:12]


def case_name(path: str) -> str:
    """A keyed pseudonym of a DICOM file or series: their paths are full of names and identifiers.

    Args:
        path: Of the file or series.

    Raises:
        RunError: The key cannot be kept.
    """
    return "case-" + _keyed(path)[:16]


def keep_names(root: Path, files: Mapping[str, Sequence[str]]) -> Path:
    """Write which pseudonym is which file beside the key, for this user's eyes, and where.

    Args:
        root: Of the cohort.
        files: Pseudonym to paths.

    Raises:
        RunError: It cannot be written.
    """
    place = home() / "names" / f"{hashlib.sha256(str(root).encode(errors='surrogateescape')).hexdigest()[:16]}.csv"
    try:
        place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        known: dict[str, str] = {}
        if place.exists():
            with place.open(newline="", encoding="utf-8", errors="surrogateescape") as stream:
                known = {row["file"]: row["case"] for row in csv.DictReader(stream)}
        # Of other tables on the same folder, too.
        known |= {file: name for name, members in files.items() for file in members}
        temporary = place.with_suffix(f".{os.getpid()}.tmp")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", newline="", encoding="utf-8", errors="surrogateescape") as stream:
            csv.writer(stream).writerows([("case", "file"), *sorted((name, file) for file, name in known.items())])
        temporary.replace(place)
    except OSError as error:
        raise RunError(f"could not keep the names of cases in {place}: {error.strerror}. Set MEDGRAFT_HOME.") from error
    return place


def _keyed(text: str) -> str:
    path = home() / "pseudonym.key"
    try:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_suffix(f".{os.getpid()}.tmp")
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(secrets.token_hex(_KEY_BYTES))
            # Whole or not at all, and the first of two processes wins.
            with contextlib.suppress(FileExistsError):
                os.link(temporary, path)
            temporary.unlink()
        key = path.read_text()
    except OSError as error:
        raise RunError(f"could not keep the pseudonym key in {path}: {error.strerror}. Set MEDGRAFT_HOME.") from error
    if len(key) != 2 * _KEY_BYTES:
        raise RunError(
            f"expected a key of {2 * _KEY_BYTES} characters in {path}, got {len(key)}. Restore or remove it."
        )
    return hmac.new(key.encode(), text.encode(errors="surrogateescape"), hashlib.sha256).hexdigest()
