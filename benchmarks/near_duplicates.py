"""Which planted near-duplicates are found, and which pairs of different pictures are called one.

    python benchmarks/near_duplicates.py [--cohort NAME=FOLDER_OR_NPZ ...] [--images 400] [--large 50000]

Into each cohort copies of a tenth of its pictures are planted, edited in one of six ways at a random strength, round
after round, until every way was tried on 100 pictures. A pair is false that joins a copy to a picture that is not its
own. What is found in the cohort without any copy is told apart: of drawn cohorts these are false, in real ones there
may be repeated scans.
"""

import argparse
import dataclasses
import functools
import io
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter, shift

from medgraft.data.audit.duplicates import near_duplicates
from medgraft.data.decoded.fingerprint import thumbnail
from medgraft.phantom.phantom import DEMO, phantom_case

TRIED = 100
"""Copies of each kind."""
SIDE = 128


def as_bytes(image: np.ndarray) -> np.ndarray:
    """Grey levels as a file holds them."""
    return np.asarray(np.clip(np.rint(image), 0, 255).astype(np.uint8))


def moved(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A scan up to 5 % to the side; what came in repeats the rim."""
    by = rng.uniform(-0.05, 0.05, 2) * len(image)
    return as_bytes(shift(image.astype(float), by, order=1, mode="nearest"))


def cropped(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Up to 6 % lost of either axis, a different share at each edge."""
    height, width = image.shape
    top, left = (int(rng.uniform(0, 0.06) * side) for side in image.shape)
    low, right = int(rng.uniform(0, 0.06) * height), int(rng.uniform(0, 0.06) * width)
    low, right = min(low, int(0.06 * height) - top), min(right, int(0.06 * width) - left)
    return image[top : height - max(0, low), left : width - max(0, right)]


def brighter(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Other gamma, contrast and brightness; what leaves 0 to 255 is cut off."""
    scaled = (image / 255) ** rng.uniform(0.7, 1.4) * rng.uniform(0.75, 1.15) + rng.uniform(-0.1, 0.1)
    return as_bytes(255 * scaled)


def compressed(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """JPEG of quality 30 to 70."""
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=int(rng.integers(30, 71)))
    return np.asarray(Image.open(stream))


EDITS: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    "brightness": brighter,
    "crop": cropped,
    "shift": moved,
    "quarter turn": lambda image, rng: np.rot90(image, int(rng.integers(1, 4))),
    "mirror": lambda image, rng: image[:, ::-1],
    "JPEG": compressed,
}


def disc(rng: np.random.Generator) -> np.ndarray:
    """Fundus: a bright disc on black with a bright spot, as everybody has them, and vessels of one's own."""
    down, right = np.mgrid[:SIDE, :SIDE] / SIDE - 0.5
    vessels = np.zeros((SIDE, SIDE))
    for _ in range(10):
        angle, place = rng.uniform(0, 2 * np.pi), np.array([0.5, 0.35]) * SIDE
        for _ in range(SIDE):
            angle += rng.normal(0, 0.15)
            place = np.clip(place + np.array([np.sin(angle), np.cos(angle)]), 0, SIDE - 1)
            vessels[tuple(place.astype(int))] = 1
    light = 120 + 80 * np.exp(-(down**2 + (right + 0.15) ** 2) / 0.01) - 90 * gaussian_filter(vessels, 1)
    return as_bytes(np.where(down**2 + right**2 < 0.2, light, 0))


def lesion(rng: np.random.Generator) -> np.ndarray:
    """Dermoscopy: one dark blot of its own outline and pattern in the middle of bright skin, with hairs on some."""
    down, right = np.mgrid[:SIDE, :SIDE] / SIDE - 0.5
    angle = np.arctan2(down, right)
    waves = sum(rng.normal(0, 0.03 / k) * np.cos(k * angle + rng.uniform(0, 2 * np.pi)) for k in range(2, 7))
    radius = rng.uniform(0.2, 0.32) + waves
    inside = 1 / (1 + np.exp((np.hypot(down, right) - radius) / 0.015))
    pattern = gaussian_filter(rng.standard_normal((SIDE, SIDE)), rng.uniform(2, 5))
    image = 205 - 100 * inside * (1 + 0.25 * pattern / pattern.std())
    for _ in range(int(rng.integers(0, 5))):
        slope, offset = rng.uniform(-1, 1), rng.uniform(-0.5, 0.5)
        image -= 70 * np.exp(-(((down - slope * right - offset) / 0.006) ** 2))
    return as_bytes(image + rng.normal(0, 3, image.shape))


def body_slice(rng: np.random.Generator) -> np.ndarray:
    """Axial CT: body, lungs, spine and heart, of everybody at nearly the same place, and texture of one's own."""
    down, right = np.mgrid[:SIDE, :SIDE] / SIDE - 0.5

    def near(value: float, spread: float) -> float:
        return value * (1 + rng.normal(0, spread))

    image = 130.0 * ((down / near(0.35, 0.04)) ** 2 + (right / near(0.45, 0.04)) ** 2 < 1)
    for middle in (-0.2, 0.2):
        image[(down / near(0.2, 0.07)) ** 2 + ((right - near(middle, 0.05)) / near(0.14, 0.07)) ** 2 < 1] = 40
    image[((down - 0.25) / 0.06) ** 2 + (right / 0.06) ** 2 < 1] = 220
    image[((down + near(0.05, 0.3)) / near(0.12, 0.1)) ** 2 + ((right + near(0.06, 0.3)) / 0.1) ** 2 < 1] = 150
    texture = gaussian_filter(rng.standard_normal((SIDE, SIDE)), 3)
    return as_bytes(image + 8 * texture / texture.std() + rng.normal(0, 3, image.shape))


def texture_slice(rng: np.random.Generator) -> np.ndarray:
    """The same body for everybody: people differ in a faint texture alone."""
    down, right = np.mgrid[:SIDE, :SIDE] / SIDE - 0.5
    image = 130.0 * ((down / 0.35) ** 2 + (right / 0.45) ** 2 < 1)
    for middle in (-0.2, 0.2):
        image[(down / 0.2) ** 2 + ((right - middle) / 0.14) ** 2 < 1] = 40
    image[((down - 0.25) / 0.06) ** 2 + (right / 0.06) ** 2 < 1] = 220
    texture = gaussian_filter(rng.standard_normal((SIDE, SIDE)), 3)
    return as_bytes(image + 6 * texture / texture.std() + rng.normal(0, 3, image.shape))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What was found in one cohort.

    Args:
        rates: Share of the copies of each kind.
        false: Pairs that are none, of all pairs that were compared.
        own: Pairs in the cohort without copies, of all its pairs.
    """

    rates: dict[str, float]
    false: tuple[int, int]
    own: tuple[int, int]


DRAWN: dict[str, Callable[[np.random.Generator], np.ndarray]] = {
    "discs": disc,
    "dermoscopy-like": lesion,
    "slices": body_slice,
    "slices, texture alone": texture_slice,
}


def drawn(draw: Callable[[np.random.Generator], np.ndarray], num: int, seed: int) -> list[np.ndarray]:
    """Pictures of one kind, each from its own seed."""
    return [draw(np.random.default_rng([seed, row])) for row in range(num)]


def phantom(num: int) -> list[np.ndarray]:
    """Films of the phantom, one of each patient."""
    return [phantom_case(DEMO, patient, 0)[0] for patient in range(num)]


def read(place: Path, num: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Grey pictures of a folder (masks left out) or of an archive as MedMNIST has it, at most `num` drawn by chance."""
    if place.suffix == ".npz":
        with np.load(place) as arrays:
            images = np.concatenate([arrays[f"{part}_images"] for part in ("train", "val", "test")])
        return list(images[np.sort(rng.permutation(len(images))[:num])])
    files = sorted(
        file
        for file in place.rglob("*")
        if file.suffix.lower() in {".png", ".jpg", ".jpeg", ".bmp", ".tif"} and not file.stem.endswith(("HO", "_mask"))
    )
    return [np.asarray(Image.open(files[row]).convert("L")) for row in np.sort(rng.permutation(len(files))[:num])]


def found_in(images: list[np.ndarray], thumbs: np.ndarray, rng: np.random.Generator) -> Found:
    """How many planted copies of each kind are found, and how many pairs are called one that are none.

    Args:
        images: The cohort.
        thumbs: Its thumbnails.
        rng: Draws the copies.
    """
    num, kinds = len(images), list(EDITS)
    own = {(pair.first, pair.second) for pair in near_duplicates(thumbs, np.arange(num)).pairs}
    each = max(1, num // 10 // len(kinds))
    tried, hits = dict.fromkeys(kinds, 0), dict.fromkeys(kinds, 0)
    false = pairs_asked = 0
    while min(tried.values()) < TRIED:
        rows = rng.permutation(num)[: each * len(kinds)]
        named = [kinds[place % len(kinds)] for place in range(len(rows))]
        copies = [thumbnail(EDITS[kind](images[row], rng)) for kind, row in zip(named, rows.tolist(), strict=True)]
        found = near_duplicates(np.concatenate([thumbs, copies]), np.arange(num + len(rows)))
        pairs = {(pair.first, pair.second) for pair in found.pairs}
        truth = {(row, num + place): kind for place, (row, kind) in enumerate(zip(rows.tolist(), named, strict=True))}
        source = dict(enumerate(rows.tolist(), num))
        for pair, kind in truth.items():
            tried[kind] += 1
            hits[kind] += pair in pairs
        # The copy of a picture that has a near-duplicate of its own is one of that, too.
        resolved = {tuple(sorted(source.get(row, row) for row in pair)) for pair in pairs - truth.keys()}
        false += len(resolved - own)
        pairs_asked += (num + len(rows)) * (num + len(rows) - 1) // 2
    rates = {kind: hits[kind] / tried[kind] for kind in kinds}
    return Found(rates=rates, false=(false, pairs_asked), own=(len(own), num * (num - 1) // 2))


def large(num: int, rng: np.random.Generator) -> str:
    """Seconds for a large cohort: thumbnails of discs, blotted each by its own noise, with a hundredth of copies."""
    common = thumbnail(disc(rng)).astype(np.float32)
    thumbs = np.empty((num, 64, 64), np.uint8)
    for start in range(0, num, 1000):
        own = gaussian_filter(rng.standard_normal((min(1000, num - start), 64, 64)).astype(np.float32), (0, 2, 2))
        thumbs[start : start + 1000] = np.clip(common + 120 * own, 0, 255)
    rows = rng.permutation(num - num // 100)[: num // 100]
    thumbs[num - num // 100 :] = np.rot90(thumbs[rows], axes=(1, 2))
    begin = time.perf_counter()
    found = near_duplicates(thumbs, np.arange(num))
    seconds = time.perf_counter() - begin
    truth = {(int(row), num - num // 100 + place) for place, row in enumerate(rows)}
    hits = sum((pair.first, pair.second) in truth for pair in found.pairs)
    return f"{num} images: {seconds:.0f} s, {hits / len(truth):.3f} found, {len(found.pairs) - hits} false pairs"


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cohort", action="append", default=[], metavar="NAME=FOLDER_OR_NPZ")
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--large", type=int, default=0, metavar="N", help="time a cohort of N images, too")
    parser.add_argument("--only", help="of the drawn cohorts, this one")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print("| cohort | images | " + " | ".join(EDITS) + " | false, of planted cohorts | without copies |")
    print("| --- | ---: |" + " ---: |" * (len(EDITS) + 2))
    sources: dict[str, Callable[[], list[np.ndarray]]] = {
        name: functools.partial(drawn, draw, options.images, options.seed) for name, draw in DRAWN.items()
    }
    sources["phantom"] = functools.partial(phantom, options.images)
    sources = {name: source for name, source in sources.items() if options.only in (None, name)}
    for text in options.cohort:
        name, _, place = text.partition("=")
        sources[name] = functools.partial(read, Path(place), options.images, np.random.default_rng(options.seed))
    for name, source in sources.items():
        images = source()
        thumbs = np.stack([thumbnail(image) for image in images])
        result = found_in(images, thumbs, np.random.default_rng(options.seed))
        rates = " | ".join(f"{value:.3f}" for value in result.rates.values())
        false, own = (f"{num} of {of}" for num, of in (result.false, result.own))
        print(f"| {name} | {len(images)} | {rates} | {false} | {own} |", flush=True)
    if options.large:
        print(large(options.large, np.random.default_rng(options.seed)))


if __name__ == "__main__":
    main()
