"""Reading one case or one archive, and turning pixels into the network's input."""

from medgraft.io.archive import read_archive
from medgraft.io.case import is_case, read_case, read_case_facts
from medgraft.io.dicom import read_dicom
from medgraft.io.dicom_header import read_header
from medgraft.io.image import IMAGE_SUFFIXES, MAX_PIXELS, read_facts, read_image
from medgraft.io.intensity import CT_WINDOWS, to_sixteen_bits
from medgraft.io.preprocess import intensity_scale, prepare, prepare_mask, restore
from medgraft.io.volume import read_volume, read_volume_facts

__all__ = [
    "CT_WINDOWS",
    "IMAGE_SUFFIXES",
    "MAX_PIXELS",
    "intensity_scale",
    "is_case",
    "prepare",
    "prepare_mask",
    "read_archive",
    "read_case",
    "read_case_facts",
    "read_dicom",
    "read_facts",
    "read_header",
    "read_image",
    "read_volume",
    "read_volume_facts",
    "restore",
    "to_sixteen_bits",
]
