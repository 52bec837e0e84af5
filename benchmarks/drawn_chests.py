"""An archive of drawn chests in MedMNIST's keys, for trials of networks for volumes; a demonstration, not evidence.

python benchmarks/drawn_chests.py chests3d.npz
"""

import argparse
from pathlib import Path

import numpy as np

from medgraft.data.phantom import DEMO_VOLUMES, phantom_case


def main() -> None:
    """Draw and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--counts", type=int, nargs=3, default=(720, 120, 240), help="train, val, test")
    options = parser.parse_args()
    arrays, patient = {}, 0
    for split, count in zip(("train", "val", "test"), options.counts, strict=True):
        cases = [phantom_case(DEMO_VOLUMES, patient + number, 0) for number in range(count)]
        patient += count
        arrays[f"{split}_images"] = np.stack([volume[::-1, ::-1, ::-1] for volume, _, _ in cases])
        arrays[f"{split}_labels"] = np.array([[label] for _, _, label in cases])
    np.savez_compressed(options.out, **arrays)


if __name__ == "__main__":
    main()
