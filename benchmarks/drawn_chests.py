"""An archive of drawn chests in MedMNIST's keys, for trials of networks for volumes; a demonstration, not evidence.

python benchmarks/drawn_chests.py chests3d.npz
python benchmarks/drawn_chests.py axial.npz --plane axial --first 2000    # other patients, slices across the body
"""

import argparse
from pathlib import Path

import numpy as np

from medgraft.phantom.phantom import DEMO_VOLUMES, phantom_case

PLANES = {"coronal": (0, 1, 2), "axial": (1, 0, 2), "sagittal": (2, 0, 1)}
"""Axes of a drawn volume (back to front, feet to head, left to right) in the order of the archive."""


def main() -> None:
    """Draw and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--counts", type=int, nargs=3, default=(720, 120, 240), help="train, val, test")
    parser.add_argument("--plane", choices=PLANES, default="coronal", help="of the slices")
    parser.add_argument("--first", type=int, default=0, help="the first patient")
    options = parser.parse_args()
    arrays, patient = {}, options.first
    for split, count in zip(("train", "val", "test"), options.counts, strict=True):
        cases = [phantom_case(DEMO_VOLUMES, patient + number, 0) for number in range(count)]
        patient += count
        arrays[f"{split}_images"] = np.stack(
            [volume[::-1, ::-1, ::-1].transpose(PLANES[options.plane]) for volume, _, _ in cases]
        )
        arrays[f"{split}_labels"] = np.array([[label] for _, _, label in cases])
    np.savez_compressed(options.out, **arrays)  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
