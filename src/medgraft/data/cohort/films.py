"""Films (cine loops) whose frames are images of one examination."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from medgraft.io.dicom_header import header_if_dicom
from medgraft.io.image import IMAGE_SUFFIXES
from medgraft.io.in_order import in_order
from medgraft.types import Cohort

__all__ = ["num_frames", "with_frames"]


def with_frames(cohort: Cohort) -> Cohort:
    """The cohort in which every frame of a DICOM film is an image; frames of one file are judged together.

    Args:
        cohort: Images, one file each.
    """
    if cohort.dims == 3 or cohort.arrays is not None:
        return cohort
    files = [cohort.files_of(row)[0] for row in range(len(cohort))]
    counts = np.array(num_frames(files), dtype=np.int64)
    if (counts == 1).all():
        return cohort
    rows = np.repeat(np.arange(len(cohort)), counts)
    frames = np.concatenate([np.arange(count) for count in counts])
    table = cohort.select(rows).table
    paths = table["path"].tolist()
    is_film = counts[rows] > 1
    names = [f"{path}#{frame}" if film else path for path, frame, film in zip(paths, frames, is_film, strict=True)]
    units = table["unit"].where(table["unit"].notna(), pd.Series(paths, dtype=object).where(is_film, None))
    behind = {name: cohort.files.get(path, (path,)) for name, path in zip(names, paths, strict=True)}
    note = f"{int((counts > 1).sum())} films hold {int(counts[counts > 1].sum())} frames, each of which is an image."
    return dataclasses.replace(
        cohort.select(rows),
        table=table.assign(path=pd.Series(names, dtype=object), unit=units.astype(object)),
        files={**cohort.files, **behind},
        frames={name: int(frame) for name, frame, film in zip(names, frames, is_film, strict=True) if film},
        notes=(*cohort.notes, note),
    )


def num_frames(files: Sequence[Path]) -> list[int]:
    """Frames of each file: 1 of pictures, and of what cannot be read."""
    return list(in_order(_num_frames, files))


def _num_frames(path: Path) -> int:
    header = None if path.suffix.lower() in IMAGE_SUFFIXES else header_if_dicom(path)
    return 1 if header is None else len(header.frames)
