"""Two groups of files on different intensity scales are told, by whatever tells them apart; protocols are not."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dicom_files import dicom, save
from medgraft.data.audit.audit import audit_cohort
from medgraft.data.audit.findings import Finding
from medgraft.data.audit.scales import KIND
from medgraft.data.cohort.labelled import read_cohort
from medgraft.data.decoded.images import build_cache
from medgraft.types import Reading
from volume_files import write_nifti


def drawn(number: int, dims: int = 2) -> np.ndarray:
    """A dark ground and a brighter disc, up to about 3 000."""
    rng = np.random.default_rng(number)
    axes = np.meshgrid(*[np.arange(24)] * dims, indexing="ij")
    disc = sum((axis - 12) ** 2 for axis in axes) < 50
    return (
        (600 + 80 * rng.normal(size=disc.shape) + 2000 * disc * rng.uniform(0.8, 1.2)).clip(0, 4095).astype(np.uint16)
    )


def finding(
    root: Path, *, reading: Reading | None = None, sides: tuple[int, ...] = (24, 24), **options: Any
) -> Finding | None:
    cohort = read_cohort(root, **options)
    decoded = build_cache(cohort, root.parent / "cache", sides=sides, reading=reading or Reading())
    return audit_cohort(cohort.select(decoded.rows), decoded).of(KIND)


def write(root: Path, change: Any, *, num: int = 24) -> None:
    """Images of two classes, every third pair of which `change` makes another way."""
    for number in range(num):
        is_other = number // 2 % 3 == 0
        made = dicom(drawn(number), **(change if is_other else {}))
        made.PatientID = f"P{number}"
        save(made, root / "ab"[number % 2] / f"{number:02d}.dcm")


def test_devices_that_declare_other_bits_are_told(tmp_path: Path) -> None:
    write(tmp_path / "x", {"bits": 16})
    found = finding(tmp_path / "x")
    assert found is not None
    assert re.search(r"8 of 16 bits are 1[4-7]\.\d times darker than the other 16", found.message)
    assert len(found.rows) == 8


def test_percentiles_are_the_way_out(tmp_path: Path) -> None:
    write(tmp_path / "x", {"bits": 16})
    assert finding(tmp_path / "x", reading=Reading(scaling="percentile")) is None


def test_a_device_that_writes_negatives_is_told(tmp_path: Path) -> None:
    for number in range(24):
        made = dicom(4095 - drawn(number) if number // 2 % 3 == 0 else drawn(number))
        made.Manufacturer, made.ManufacturerModelName = ("ACME", "One") if number // 2 % 3 == 0 else ("Best", "Two")
        save(made, tmp_path / "x" / "ab"[number % 2] / f"{number:02d}.dcm")
    found = finding(tmp_path / "x")
    assert found is not None
    assert "8 of the device ACME One are (by their middle) like negatives of" in found.message


def test_a_slope_that_turns_negatives_round_needs_no_warning(tmp_path: Path) -> None:
    for number in range(24):
        is_other = number // 2 % 3 == 0
        made = dicom(4095 - drawn(number), rescale=(-1, 4095)) if is_other else dicom(drawn(number))
        save(made, tmp_path / "x" / "ab"[number % 2] / f"{number:02d}.dcm")
    assert finding(tmp_path / "x") is None


@pytest.mark.parametrize("kind", ["site", "numbers"])
def test_pictures_are_told_by_site_or_by_their_numbers_alone(kind: str, tmp_path: Path) -> None:
    rows = ["path,label,site"]
    (tmp_path / "x").mkdir()
    for number in range(24):
        is_other = number // 2 % 3 == 0
        Image.fromarray(drawn(number) * (1 if is_other else 16)).save(tmp_path / "x" / f"{number}.png")
        rows.append(f"{number}.png,{number % 2},{('north' if is_other else 'south') if kind == 'site' else ''}")
    (tmp_path / "x" / "t.csv").write_text("\n".join(rows) + "\n")
    found = finding(tmp_path / "x" / "t.csv")
    assert found is not None
    assert ("of the site north" if kind == "site" else "whose numbers end at") in found.message


def test_volumes_are_told_too(tmp_path: Path) -> None:
    for number in range(12):
        values = drawn(number, 3) * (1 if number // 2 % 2 else 16)
        path = tmp_path / "x" / "ab"[number % 2] / f"{number}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, values)
    found = finding(tmp_path / "x", sides=(24, 24, 24), dims=3)
    assert found is not None
    assert "Two groups of volumes" in found.message


def test_what_is_scaled_by_its_own_values_is_not_told(tmp_path: Path) -> None:
    for number in range(12):
        write_nifti(drawn(number, 3) * (1 if number % 4 else 9), tmp_path / "x" / "ab"[number % 2] / f"{number}.nii.gz")
    assert finding(tmp_path / "x", sides=(24, 24, 24), dims=3) is None


@pytest.mark.parametrize("factor", [1.0, 1.3, 0.7])
def test_another_protocol_is_no_other_scale(factor: float, tmp_path: Path) -> None:
    for number in range(24):
        values = drawn(number) * (factor if number // 2 % 3 == 0 else 1)
        made = dicom(values.clip(0, 4095).astype(np.uint16))
        made.Manufacturer = "ACME" if number // 2 % 3 == 0 else "Best"
        save(made, tmp_path / "x" / "ab"[number % 2] / f"{number:02d}.dcm")
    assert finding(tmp_path / "x") is None
