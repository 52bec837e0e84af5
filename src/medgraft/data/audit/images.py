"""Findings on single images: unreadable, empty of content, unlike the others."""

from typing import Final

import numpy as np

from medgraft.data.audit.findings import MAX_ROWS, Finding, finding_of
from medgraft.data.decoded.images import DecodedCohort
from medgraft.data.decoded.rows import STEPS
from medgraft.types import Cohort

__all__ = ["image_findings"]

SIZE_FACTOR: Final = 4.0
"""A side this many times larger or smaller than the median is odd."""
ASPECT_FACTOR: Final = 2.0


def image_findings(cohort: Cohort, decoded: DecodedCohort) -> list[Finding]:
    """Unreadable, constant, oddly sized images, and mixtures of depth or colour.

    Args:
        cohort: The readable images.
        decoded: Their cache.
    """
    return [
        *_broken(decoded),
        *_constant(cohort, np.flatnonzero(decoded.facts["low"] == decoded.facts["high"])),
        *_odd_sizes(cohort, decoded),
        *_mixed(cohort, decoded),
        *_dicom(cohort, decoded),
        *_spacing(cohort, decoded),
    ]


def _broken(decoded: DecodedCohort) -> list[Finding]:
    if not decoded.broken:
        return []
    count = len(decoded.broken)
    message = f"{count} files cannot be read and are left out. First: {decoded.broken[0].reason}"
    paths = tuple(broken.path for broken in decoded.broken[:MAX_ROWS])
    return [Finding(kind="unreadable", severity="warn", message=message, count=count, paths=paths)]


def _constant(cohort: Cohort, rows: np.ndarray) -> list[Finding]:
    message = f"{len(rows)} {cohort.noun} have one value everywhere and show nothing."
    return [finding_of(cohort, "constant", "warn", message, len(rows), rows)] if len(rows) else []


def _odd_sizes(cohort: Cohort, decoded: DecodedCohort) -> list[Finding]:
    depth, height, width = (decoded.facts[name].astype(float) for name in ("depth", "height", "width"))
    side, aspect = np.sqrt(height * width), width / height
    ratios = [(side, SIZE_FACTOR), (aspect, ASPECT_FACTOR)]
    axes, unit = [width, height], "px"
    if cohort.dims == 3:
        ratios.append((depth, SIZE_FACTOR))
        axes, unit = [width, height, depth], "voxels"
    is_odd = np.zeros(len(cohort), dtype=bool)
    for values, factor in ratios:
        ratio = values / np.median(values)
        is_odd |= np.maximum(ratio, 1 / ratio) > factor
    rows = np.flatnonzero(is_odd)
    if not len(rows):
        return []
    typical = "×".join(f"{np.median(axis):.0f}" for axis in axes)
    first = "×".join(f"{axis[rows[0]]:.0f}" for axis in axes)
    message = (
        f"{len(rows)} {cohort.noun} are oddly sized against the typical {typical} {unit}, "
        f"e.g. {decoded.paths[rows[0]]} {first}."
    )
    return [finding_of(cohort, "odd-size", "warn", message, len(rows), rows)]


def _mixed(cohort: Cohort, decoded: DecodedCohort) -> list[Finding]:
    findings = []
    shallow = np.flatnonzero(decoded.facts["bits"] == 8)
    if decoded.bits == 16 and len(shallow):
        message = f"{len(shallow)} {cohort.noun} have 8 bits among others of 16; they will look nearly black."
        findings.append(finding_of(cohort, "mixed-depth", "warn", message, len(shallow), shallow))
    coloured = np.flatnonzero(decoded.facts["channels"] == 3)
    if decoded.channels == 1 and len(coloured):
        message = f"{len(coloured)} colour images are turned grey, because the cohort is read as grey."
        findings.append(finding_of(cohort, "colour-dropped", "warn", message, len(coloured), coloured))
    elif decoded.channels == 3 and 0 < len(coloured) < len(cohort):
        message = f"{len(coloured)} of {len(cohort)} images are coloured, the others grey."
        findings.append(finding_of(cohort, "mixed-colour", "info", message, len(coloured), coloured))
    return findings


def _dicom(cohort: Cohort, decoded: DecodedCohort) -> list[Finding]:
    """What was done to DICOM files, and where it was not done to all of them."""
    modality, steps = decoded.facts["modality"], decoded.facts["steps"]
    is_dicom = decoded.facts["mode"] == b"DICOM"
    if not is_dicom.any():
        return []
    done = {step: is_dicom & ((steps & (1 << bit)) > 0) for bit, step in enumerate(STEPS)}
    names, counts = np.unique(modality[is_dicom], return_counts=True)
    kinds = ", ".join(
        f"{count} {name.decode() or 'without modality'}" for name, count in zip(names, counts, strict=True)
    )
    applied = ", ".join(f"{step} {mask.sum()}" for step, mask in done.items() if mask.any())
    message = f"DICOM: {kinds}. Applied: {applied or 'nothing'}."
    findings = [finding_of(cohort, "dicom", "info", message, int(is_dicom.sum()), [])]
    findings += [*_codecs(cohort, decoded), *_void_windows(cohort, done["no window"])]
    is_shown = done["window"] | done["VOI LUT"] | done["palette"]
    bare = np.flatnonzero(is_dicom & ~is_shown & (decoded.facts["channels"] == 1))
    if is_shown.any() and len(bare):
        message = (
            f"{len(bare)} DICOM {cohort.noun} have no window of their own, the other {int(is_shown.sum())} have one: "
            "brightness may tell them apart. Compare them, or read all alike with --set data.windows=none."
        )
        findings.append(finding_of(cohort, "mixed-window", "warn", message, len(bare), bare))
    return findings


def _codecs(cohort: Cohort, decoded: DecodedCohort) -> list[Finding]:
    """Files that one codec could not read and another one could."""
    readers = decoded.facts["decoder"]
    rows = np.flatnonzero(readers != b"")
    if not len(rows):
        return []
    names = ", ".join(sorted({name.decode() for name in readers[rows]}))
    message = f"{len(rows)} {cohort.noun} could not be read by the usual codec and were by {names}. Look at some."
    return [finding_of(cohort, "second-codec", "warn", message, len(rows), rows)]


def _void_windows(cohort: Cohort, is_void: np.ndarray) -> list[Finding]:
    """Files whose window cannot be one."""
    rows = np.flatnonzero(is_void)
    if not len(rows):
        return []
    message = f"{len(rows)} {cohort.noun} have a window of width 0 or below, which is none: they are read without it."
    return [finding_of(cohort, "void-window", "info", message, len(rows), rows)]


def _spacing(cohort: Cohort, decoded: DecodedCohort) -> list[Finding]:
    """How far apart pixels are in the body, as far as the files tell."""
    spacing = decoded.facts["spacing_mm"][:, -cohort.dims :]
    is_spaced = (spacing > 0).all(1)
    if not is_spaced.any():
        return []
    axes = ("slices", "rows", "columns")[-cohort.dims :]
    ranges = ", ".join(f"{axis} {_span(column)} mm" for axis, column in zip(axes, spacing[is_spaced].T, strict=True))
    at_detector = np.flatnonzero(decoded.facts["is_at_detector"])
    parts = [f"{len(at_detector)} measured at the detector, where the body is magnified"] if len(at_detector) else []
    parts += [f"{int((~is_spaced).sum())} without"] if not is_spaced.all() else []
    message = f"Distances: {ranges}{''.join(f'; {part}' for part in parts)}."
    return [finding_of(cohort, "spacing", "info", message, int(is_spaced.sum()), [])]


def _span(values: np.ndarray) -> str:
    low, high = f"{values.min():.3g}", f"{values.max():.3g}"
    return low if low == high else f"{low} to {high}"
