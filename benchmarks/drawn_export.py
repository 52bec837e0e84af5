"""A drawn PACS export: films of the phantom as DICOM files of mixed kinds, and a table of labels by AccessionNumber.

python benchmarks/drawn_export.py export
medgraft fit export/dicom --labels export/labels.csv --key AccessionNumber --set data.unit=study --out run
"""

import argparse
import csv
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
    generate_uid,
)

from medgraft.phantom.phantom import DEMO, phantom_case

SYNTAXES = (ExplicitVRLittleEndian, JPEG2000Lossless, JPEGLSLossless, RLELossless)
UNLABELLED, UNSENT = 7, 5
"""Studies without a row, and rows without a study."""


def main() -> None:
    """Draw and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--patients", type=int, default=240)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    rows = [(f"A{900 + number}", "normal", f"P{900 + number}") for number in range(UNSENT)]
    for patient in range(options.patients):
        study, accession = generate_uid(entropy_srcs=[f"study {patient}"]), f"A{10_000 + patient}"
        for index in range(1 + int(rng.random() < 0.3)):
            pixels, _, label = phantom_case(DEMO, patient, index)
            image = film(pixels, rng)
            image.PatientID, image.PatientName = f"P{patient}", f"Doe^Jane {patient}"
            image.AccessionNumber, image.StudyInstanceUID = accession, study
            image.SeriesInstanceUID = generate_uid(entropy_srcs=[f"series {patient} {index}"])
            folder = options.out / "dicom" / f"{patient % 10:02d}" / f"ST{patient:06d}" / f"SE{index:06d}"
            folder.mkdir(parents=True, exist_ok=True)
            image.save_as(folder / "IM000001", enforce_file_format=True)
        if patient >= UNLABELLED:
            rows.append((accession, DEMO.classes[label], f"P{patient}"))
    (options.out / "dicom" / "README.txt").write_text("Exported.", encoding="utf-8")
    with (options.out / "labels.csv").open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([("accession number", "diagnosis", "patient_id"), *rows])


def film(pixels: np.ndarray, rng: np.random.Generator) -> Dataset:
    """A drawn film of 8 bits as one of 12 or 14, as one of the kinds of scanner stores it."""
    is_cr, is_inverse, bits = rng.random() < 0.4, rng.random() < 0.5, int(rng.choice((12, 14)))
    stored = np.rint(pixels.astype(float) / 255 * (2**bits - 1)).astype(np.uint16)
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made = Dataset()
    made.file_meta = meta
    made.SOPClassUID = ComputedRadiographyImageStorage if is_cr else DigitalXRayImageStorageForPresentation
    made.SOPInstanceUID = generate_uid()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = made.SOPClassUID, made.SOPInstanceUID
    made.Modality = "CR" if is_cr else "DX"
    made.PhotometricInterpretation = "MONOCHROME1" if is_inverse else "MONOCHROME2"
    stored = 2**bits - 1 - stored if is_inverse else stored
    made.Rows, made.Columns = stored.shape
    made.SamplesPerPixel, made.BitsAllocated, made.BitsStored, made.HighBit = 1, 16, bits, bits - 1
    made.PixelRepresentation = 0
    made.ImagerPixelSpacing = [0.2, 0.2] if is_cr else [0.14, 0.14]
    if rng.random() < 0.7:
        made.WindowCenter, made.WindowWidth = 2 ** (bits - 1), 2**bits
    made.PixelData = stored.tobytes()
    made["PixelData"].VR = "OW"
    syntax = SYNTAXES[int(rng.integers(len(SYNTAXES)))]
    if syntax != ExplicitVRLittleEndian:
        made.compress(syntax, generate_instance_uid=False)
    return made


if __name__ == "__main__":
    main()
