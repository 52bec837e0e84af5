"""The images a network was pretrained on, or their statistics: what the distance of a cohort is measured to."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from medgraft.analysis.domains import FeatureStatistics
from medgraft.analysis.statistics import read_statistics
from medgraft.config import DataConfig
from medgraft.data.cohort.cases import find_cases
from medgraft.data.decoded.images import build_cache
from medgraft.data.decoded.rows import read_files
from medgraft.errors import DataError, MedgraftError
from medgraft.io.preprocess import intensity_scale, prepare
from medgraft.listener import Listener
from medgraft.prepare.cohort import open_cohort
from medgraft.train.batches import ImageSet
from medgraft.types import Preprocessing

__all__ = ["read_source"]

_FEWEST: Final = 20


def read_source(
    path: Path, preprocessing: Preprocessing, network: str, num_images: int, seed: int, listener: Listener
) -> ImageSet | dict[int, FeatureStatistics]:
    """A second cohort, as the network sees it, or the stored statistics of one.

    Args:
        path: Folder of images (labels do not matter), table or ``.npz`` as for a cohort, or ``statistics.npz`` that an
            analysis of a cohort leaves.
        preprocessing: Preprocessing of the network that will look at them.
        network: Its name with weights, which stored statistics must be of.
        num_images: At most so many, drawn with `seed`.
        seed: Seeds the draw.
        listener: Told what was found.

    Raises:
        DataError: Nothing readable, too few images, or statistics of another network.
    """
    if path.suffix == ".npz" and path.is_file() and (stored := read_statistics(path, network)):
        return stored
    rng = np.random.default_rng(seed)
    if path.is_dir():
        files = find_cases([path], preprocessing.dims)
        drawn = [files[i] for i in np.sort(rng.permutation(len(files))[:num_images])]
        images = _read(drawn, preprocessing, listener)
    else:
        cohort = open_cohort(
            DataConfig(source=str(path), resize=preprocessing.resize, dims=preprocessing.dims), listener
        )
        with tempfile.TemporaryDirectory(prefix="medgraft-source-") as temporary:
            decoded = build_cache(
                cohort,
                Path(temporary),
                sides=preprocessing.sides,
                channels=preprocessing.channels,
                resize=preprocessing.resize,
                reading=preprocessing.reading,
            )
            rows = np.sort(rng.permutation(len(decoded.images))[:num_images])
            images = np.asarray(decoded.images[rows])
    listener.say(f"{len(images)} images of {path} to measure the distance to.")
    return ImageSet(
        images=images,
        rows=np.arange(len(images)),
        targets=np.zeros(len(images), dtype=np.int64),
        intensity_max=intensity_scale(int(images.max())),
        task="binary",
        positive=None,
        num_classes=2,
    )


def _read(files: Sequence[tuple[Path, ...]], preprocessing: Preprocessing, listener: Listener) -> np.ndarray:
    """(n, C, *spatial) uint16 of the images that can be read.

    Args:
        files: Files of each image.
        preprocessing: Preprocessing of the network that will look at them.
        listener: Told how far it is, and what is left out.
    """
    images = []
    for done, file in enumerate(files):
        listener.step("reading the source", done, len(files))
        try:
            pixels, facts = read_files(file, preprocessing.dims, preprocessing.reading)
            images.append(prepare(pixels, preprocessing, facts.spacing_mm).astype(np.uint16))
        except MedgraftError as error:
            listener.say(f"warn: {file[0].name} is left out: {error}")
    if len(images) < _FEWEST:
        raise DataError(f"expected at least {_FEWEST} readable images of the source, got {len(images)}.")
    return np.stack(images)
