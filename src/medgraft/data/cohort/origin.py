"""Where the images of a cohort come from: a hospital, or this program's own drawing."""

from typing import Final

from medgraft.types import Cohort

__all__ = ["PHANTOM_MARK", "is_phantom"]

PHANTOM_MARK: Final = "phantom.json"
"""Lies beside images that `medgraft.phantom.phantom.write_phantom` drew."""


def is_phantom(cohort: Cohort) -> bool:
    """Whether this program drew the images of a cohort, whatever their classes and files are called.

    Args:
        cohort: Read from files, or from arrays, which nobody drew.
    """
    if cohort.arrays is not None or not len(cohort):
        return False
    folder = cohort.files_of(0)[0].parent
    return any((candidate / PHANTOM_MARK).is_file() for candidate in (cohort.root, folder, folder.parent))
