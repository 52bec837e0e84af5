"""What may leave the machine instead of a person's name: pseudonyms keyed by a secret that stays here."""

import contextlib
import hashlib
import hmac
import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path

from medgraft.config import home
from medgraft.errors import RunError

__all__ = ["case_name", "keep_names", "pseudonym"]


def pseudonym(identity: str) -> str:
    """A keyed pseudonym of a patient; the key stays on this machine, outside every run folder.

    Raises:
        RunError: The key cannot be kept.
    """
    return "p" + _keyed(identity)[:12]


def case_name(path: str) -> str:
    """A keyed pseudonym of a DICOM file or series: their paths are full of names and identifiers.

    Args:
        path: Relative to the cohort.

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
    rows = [f'"{name}","{file}"' for name, members in sorted(files.items()) for file in members]
    try:
        place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape") as stream:
            stream.write("\n".join(["case,file", *rows]) + "\n")
    except OSError as error:
        raise RunError(f"could not keep the names of cases in {place}: {error.strerror}. Set MEDGRAFT_HOME.") from error
    return place


def _keyed(text: str) -> str:
    path = home() / "pseudonym.key"
    try:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileExistsError):
                descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
                with os.fdopen(descriptor, "w") as file:
                    file.write(secrets.token_hex(32))
        key = path.read_text()
    except OSError as error:
        raise RunError(f"could not keep the pseudonym key in {path}: {error.strerror}. Set MEDGRAFT_HOME.") from error
    return hmac.new(key.encode(), text.encode(errors="surrogateescape"), hashlib.sha256).hexdigest()
