"""Thousands of damaged files: each one is decoded or refused by name; none crashes, hangs or fills the memory.

    python benchmarks/fuzz_decoding.py --files 10000 --seed 0

Whole files of every format are mutated (flipped bits, cut ends, zero length, foreign pieces, headers that declare
absurd sizes; of compressed ones also what is inside) and read as images, volumes or archives in a child process. A
damaged slice lies among sound ones of its series. A child that dies is a crash, one
that is silent for over ten seconds a hang; memory is the peak of the child beyond what its imports take. Prints what
was refused and why, and every failure with the number that makes its file again.
"""

import argparse
import collections
import functools
import gzip
import io
import json
import multiprocessing
import re
import resource
import struct
import tempfile
import time
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

import nibabel
import numpy as np
import pydicom
from PIL import Image
from pydicom.data import get_testdata_files

from medgraft.data.cohort.medmnist import read_medmnist
from medgraft.errors import MedgraftError
from medgraft.io import read_case, read_case_facts, read_volume, read_volume_facts
from medgraft.types import USUAL_READING

SECONDS: Final = 10
MOST_BYTES: Final = 2 * 2**30
LARGEST: Final = 400_000
# Of DICOM in explicit little endian, tag and VR: what decides how much is read and allocated.
TAGS: Final = (
    *(
        b"\x28\x00\x10\x00US",
        b"\x28\x00\x11\x00US",
        b"\x28\x00\x02\x00US",
        b"\x28\x00\x00\x01US",
        b"\x28\x00\x01\x01US",
    ),
    *(
        b"\x28\x00\x03\x01US",
        b"\x28\x00\x08\x00IS",
        b"\x28\x00\x04\x00CS",
        b"\x28\x00\x52\x10DS",
        b"\x28\x00\x53\x10DS",
    ),
    *(b"\x28\x00\x50\x10DS", b"\x28\x00\x51\x10DS", b"\x02\x00\x10\x00UI", b"\x28\x00\x06\x00US"),
)


def whole_files() -> dict[str, bytes]:
    """One or more good files of each format by name: drawn pictures, and pydicom's packaged examples."""
    rng = np.random.default_rng(0)
    grey, colour = rng.integers(0, 256, (48, 40), np.uint8), rng.integers(0, 256, (48, 40, 3), np.uint8)
    deep = rng.integers(0, 65536, (48, 40), np.uint16)
    made = {}
    for name, array, options in (
        ("grey.png", grey, {}), ("colour.png", colour, {}), ("deep.png", deep, {}), ("grey.jpg", grey, {}),
        ("colour.jpg", colour, {}), ("grey.bmp", grey, {}), ("plain.tif", deep, {}),
        ("lzw.tif", grey, {"compression": "tiff_lzw"}), ("deflate.tif", colour, {"compression": "tiff_adobe_deflate"}),
        ("jpeg.tif", colour, {"compression": "jpeg"}),
    ):  # fmt: skip
        stream = io.BytesIO()
        kind = {".png": "PNG", ".jpg": "JPEG", ".bmp": "BMP", ".tif": "TIFF"}[Path(name).suffix]
        Image.fromarray(array).save(stream, kind, **options)
        made[name] = stream.getvalue()
    for place in map(Path, get_testdata_files()):
        if place.is_file() and place.suffix in ("", ".dcm") and place.stat().st_size < LARGEST and _is_readable(place):
            made[f"dicom {place.name}"] = place.read_bytes()
    return made | whole_volumes()


def whole_volumes() -> dict[str, bytes]:
    """Good volumes: NIfTI of several types, arrays, archives, a multi-frame file, a slice of a series."""
    rng = np.random.default_rng(1)
    volume = rng.integers(0, 4096, (9, 10, 11)).astype(np.int16)
    made = {}
    for name, values in (
        ("short.nii", volume), ("packed.nii.gz", volume), ("real.nii.gz", volume.astype(np.float64)),
        ("bytes.nii", volume.astype(np.uint8)), ("time.nii", np.stack([volume, volume], 3)),
    ):  # fmt: skip
        image = nibabel.Nifti1Image(values, np.diag([0.7, -0.7, 3.0, 1.0]))
        if name == "short.nii":
            image.header.set_slope_inter(0.5, -10)
        whole = image.to_bytes()
        made[name] = gzip.compress(whole, mtime=0) if name.endswith(".gz") else whole
    for name, values in (("short.npy", volume), ("bytes.npy", volume.astype(np.uint8)), ("real.npy", volume / 7)):
        stream = io.BytesIO()
        np.save(stream, values)
        made[name] = stream.getvalue()
    splits: dict[str, np.ndarray] = {
        f"{split}_images": np.stack([volume.astype(np.uint8)] * 6) for split in ("train", "val", "test")
    }
    splits |= {f"{split}_labels": np.arange(6)[:, None] % 2 for split in ("train", "val", "test")}
    for name, arrays in (("one.npz", {"volume": volume}), ("archive.npz", splits)):
        for suffix, save in (("", np.savez), ("packed ", np.savez_compressed)):
            stream = io.BytesIO()
            save(stream, **arrays)
            made[suffix + name] = stream.getvalue()
    return made | {"series.dcm": _slice(volume, 4), "frames.dcm": _frames(volume)}


def _slice(volume: np.ndarray, number: int) -> bytes:
    made = _bare(volume[number], 1)
    made.ImagePositionPatient, made.ImageOrientationPatient = [0, 0, 2.0 * number], [1, 0, 0, 0, 1, 0]
    return _dicom_bytes(made)


def _frames(volume: np.ndarray) -> bytes:
    made = _bare(volume, len(volume))
    shared, groups = pydicom.Dataset(), []
    plane, measures = pydicom.Dataset(), pydicom.Dataset()
    plane.ImageOrientationPatient, measures.PixelSpacing = [1, 0, 0, 0, 1, 0], [0.7, 0.7]
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = [plane], [measures]
    for number in range(len(volume)):
        group, position = pydicom.Dataset(), pydicom.Dataset()
        position.ImagePositionPatient = [0, 0, 2.0 * number]
        group.PlanePositionSequence = [position]
        groups.append(group)
    made.SharedFunctionalGroupsSequence, made.PerFrameFunctionalGroupsSequence = [shared], groups
    return _dicom_bytes(made)


def _bare(pixels: np.ndarray, num_frames: int) -> pydicom.Dataset:
    made = pydicom.Dataset()
    made.file_meta = pydicom.dataset.FileMetaDataset()
    made.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID = pydicom.uid.CTImageStorage
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID = "1.2.3.4"
    made.SeriesInstanceUID, made.Modality, made.PixelSpacing = "1.2.3", "CT", [0.7, 0.7]
    made.Rows, made.Columns = pixels.shape[-2:]
    made.NumberOfFrames, made.SamplesPerPixel, made.PhotometricInterpretation = num_frames, 1, "MONOCHROME2"
    made.BitsAllocated, made.BitsStored, made.HighBit, made.PixelRepresentation = 16, 12, 11, 1
    made.RescaleSlope, made.RescaleIntercept = 1, -1024
    made.PixelData = pixels.tobytes()
    return made


def _dicom_bytes(made: pydicom.Dataset) -> bytes:
    stream = io.BytesIO()
    made.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def _is_readable(place: Path) -> bool:
    """Damage to what is refused anyway tests little."""
    try:
        read_case(place, USUAL_READING)
    except MedgraftError as error:
        return "frames, expected one" in str(error)
    return True


def mutated(data: bytes, rng: np.random.Generator) -> tuple[str, bytes]:
    """What was done, and the damaged copy; of what is compressed, every other time that of the inside."""
    if data[:2] == b"\x1f\x8b" and rng.random() < 0.5:
        kind, inside = mutated(gzip.decompress(data), rng)
        return f"inside {kind}", gzip.compress(inside, mtime=0)
    if data[:2] == b"PK" and rng.random() < 0.5:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        name = str(rng.choice(sorted(members)))
        kind, members[name] = mutated(members[name], rng)
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w") as archive:
            for member, content in members.items():
                archive.writestr(member, content)
        return f"inside {kind}", stream.getvalue()
    kind = rng.choice(["bits", "header bits", "cut", "empty", "block", "size", "tag", "swap"])
    changed = bytearray(data)
    if kind == "empty":
        return kind, b""
    if kind == "cut":
        return kind, data[: rng.integers(1, len(data))]
    if kind in ("bits", "header bits"):
        reach = len(data) if kind == "bits" else min(len(data), 2000)
        for place in rng.integers(0, reach, rng.integers(1, 30)):
            changed[place] ^= 1 << rng.integers(8)
    elif kind == "block":
        start, length = rng.integers(0, len(data)), rng.integers(1, 500)
        changed[start : start + length] = rng.bytes(int(length))
    elif kind == "swap":
        start, other, length = rng.integers(0, len(data), 3)
        piece = bytes(changed[other : other + length])
        changed[start : start + len(piece)] = piece
    elif kind == "size":
        _declare_sizes(changed, rng)
    else:
        for tag in rng.permutation(np.array(TAGS, dtype=object))[:3]:
            place = data.find(tag)
            if place >= 0:
                length = struct.unpack_from("<H", data, place + 6)[0]
                text = [b"-1", b"0", b"99999999", b"1e308", b"NaN", b"\0" * 8, rng.bytes(8)][rng.integers(7)]
                changed[place + 8 : place + 8 + length] = text.ljust(length, b" ")[:length]
    return str(kind), bytes(changed)


def _declare_sizes(changed: bytearray, rng: np.random.Generator) -> None:
    """Absurd sides, where the format keeps them; a PNG's checksum is made right again."""
    huge = int(rng.choice([0, 1, 65535, 2**31 - 1]))
    if changed[:4] == b"\x89PNG":
        changed[16:24] = struct.pack(">II", huge, huge)
        changed[29:33] = struct.pack(">I", zlib.crc32(bytes(changed[12:29])))
    elif bytes(changed[344:347]) in (b"n+1", b"ni1"):
        axis = 40 + 2 * int(rng.integers(0, 5))
        changed[axis : axis + 2] = struct.pack("<h", min(huge, 32767))
    elif changed[1:6] == b"NUMPY":
        place = changed.find(b"(")
        changed[place : place + 6] = f"({min(huge, 99999)}".encode().ljust(6, b",")[:6]
    elif changed[:2] == b"BM":
        changed[18:26] = struct.pack("<ii", min(huge, 2**31 - 1), min(huge, 2**31 - 1))
    else:
        for tag in TAGS[:2]:
            place = changed.find(tag)
            if place >= 0:
                changed[place + 8 : place + 10] = struct.pack("<H", min(huge, 65535))


def readers(name: str, place: Path) -> tuple[Callable[[], object], ...]:
    """What reads a file of that name at `place`, header alone first."""
    if "archive" in name:
        return (functools.partial(read_medmnist, place),)
    if name.startswith("dicom") or Path(name).suffix in (".png", ".jpg", ".bmp", ".tif"):
        return functools.partial(read_case_facts, place), functools.partial(read_case, place, USUAL_READING)
    others = sorted(place.parent.glob("sound*.dcm")) if name == "series.dcm" else []
    volume = [place, *others]
    return functools.partial(read_volume_facts, volume), functools.partial(read_volume, volume, USUAL_READING)


def files(number: int, seed: int) -> Iterator[tuple[int, str, bytes]]:
    """The same files for the same seed: number, description, content."""
    originals = list(whole_files().items())
    for index in range(number):
        rng = np.random.default_rng([seed, index])
        name, data = originals[rng.integers(len(originals))]
        kind, content = mutated(data, rng)
        yield index, f"{name}, {kind}", content


def child(pipe: Connection, folder: str) -> None:
    """Reads what it is told to and says how it went."""
    warnings.simplefilter("ignore")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    volume = np.random.default_rng(1).integers(0, 4096, (9, 10, 11)).astype(np.int16)
    for number in range(4):
        (Path(folder) / f"sound{number}.dcm").write_bytes(_slice(volume, number))
    while (sent := pipe.recv()) is not None:
        name, content = sent
        suffix = ".nii.gz" if name.endswith(".nii.gz") else Path(name).suffix
        place = Path(folder) / f"case{'.bin' if name.startswith('dicom') else suffix}"
        place.write_bytes(content)
        start, told = time.perf_counter(), "decoded"
        for function in readers(name, place):
            try:
                function()
            except MedgraftError as error:
                told = f"refused: {error}"
                if str(folder) not in told:
                    told = f"failure: the file is not named ({error})"
            except BaseException as error:
                told = f"failure: {type(error).__name__}: {error}"
        used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
        if used > MOST_BYTES:
            told = f"failure: {used / 2**30:.1f} GiB of memory"
        pipe.send((told, time.perf_counter() - start, used))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("fuzz_decoding.json"))
    options = parser.parse_args()
    counts: collections.Counter[str] = collections.Counter()
    reasons: collections.Counter[str] = collections.Counter()
    failures, slowest, most = [], 0.0, 0
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(prefix="medgraft-fuzz-") as folder:

        def started() -> tuple[multiprocessing.process.BaseProcess, Connection]:
            ours, theirs = context.Pipe()
            process = context.Process(target=child, args=(theirs, folder), daemon=True)
            process.start()
            theirs.close()
            return process, ours

        process, pipe = started()
        for index, what, content in files(options.files, options.seed):
            try:
                pipe.send((what.rpartition(", ")[0], content))
                told, seconds, used = pipe.recv() if pipe.poll(SECONDS + 60 * (index == 0)) else ("", 0.0, 0)
            except (EOFError, OSError):
                process.join()
                told, seconds, used = f"failure: the process died ({process.exitcode})", 0.0, 0
            told = told or f"failure: no answer within {SECONDS} s"
            slowest, most = max(slowest, seconds), max(most, used)
            kind = told.partition(":")[0]
            counts[kind] += 1
            if kind == "refused":
                reasons[re.sub(r"^.*?(case[a-z.]*|sound\d.dcm|medgraft-fuzz-\w+): ", "", told)[:40]] += 1
            if kind == "failure":
                failures.append({"index": index, "file": what, "told": told})
                print(f"{index} ({what}): {told}", flush=True)
                process.kill()
                process, pipe = started()
        pipe.send(None)
    found = {
        "files": options.files, "seed": options.seed, "counts": dict(counts), "failures": failures,
        "slowest_seconds": slowest, "most_bytes": most, "reasons": dict(reasons.most_common()),
    }  # fmt: skip
    options.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    for reason, count in reasons.most_common(12):
        print(f"{count:6} {reason}")
    print(f"{dict(counts)}; slowest {slowest:.1f} s, most memory {most / 2**20:.0f} MiB, {len(failures)} failures")


if __name__ == "__main__":
    main()
