"""Reading one image or one archive, and turning pixels into the network's input."""

from medgraft.io.archive import read_archive
from medgraft.io.image import IMAGE_SUFFIXES, MAX_PIXELS, read_facts, read_image
from medgraft.io.preprocess import intensity_scale, prepare

__all__ = [
    "IMAGE_SUFFIXES",
    "MAX_PIXELS",
    "intensity_scale",
    "prepare",
    "read_archive",
    "read_facts",
    "read_image",
]
