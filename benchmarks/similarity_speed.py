"""What SVCCA costs: against plain LAPACK on large features, and beside the forward passes of a ResNet-50.

python benchmarks/similarity_speed.py [--images 1000] [--size 224]
"""

import argparse
import resource
import time

import numpy as np
import scipy.linalg
import torch

from medgraft.analysis import CutReader, Moments, add_cuts, svcca
from medgraft.backbones import BackboneSpec, build_backbone
from medgraft.transfer import HeadSettings, apply_strategy, prepare_source

ROWS, WIDTH, BATCH, VARIANCE = 10_000, 2_048, 500, 0.99


def plain(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """SVCCA as it is usually written: the singular values of both whole matrices, then of their product."""
    reduced = []
    for features in (x, y):
        u, s, _ = scipy.linalg.svd(features - features.mean(0), full_matrices=False)
        kept = int(np.searchsorted(np.cumsum(s**2) / (s**2).sum(), VARIANCE) + 1)
        reduced.append(u[:, :kept])
    return np.asarray(scipy.linalg.svdvals(reduced[0].T @ reduced[1]))


def features() -> tuple[np.ndarray, np.ndarray]:
    """Correlated features whose spectrum falls as that of a network's."""
    rng = np.random.default_rng(0)
    scale = np.arange(1, WIDTH + 1) ** -0.7
    x = rng.normal(size=(ROWS, WIDTH)) * scale
    y = (x + 0.5 * rng.normal(size=(ROWS, WIDTH)) * scale) @ rng.normal(size=(WIDTH, WIDTH)) / WIDTH**0.5
    return x, y


def against_lapack() -> None:
    """Time, largest difference of a coefficient, and memory of both ways."""
    x, y = features()
    start = time.perf_counter()
    pair = Moments(WIDTH, WIDTH)
    for i in range(0, ROWS, BATCH):
        pair.add(x[i : i + BATCH], y[i : i + BATCH])
    ours = svcca(pair, variance=VARIANCE)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    start = time.perf_counter()
    theirs = plain(x, y)
    plain_seconds = time.perf_counter() - start
    plain_peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    ratio = plain_seconds / seconds
    print(f"SVCCA of {ROWS} x {WIDTH}: {seconds:.1f} s streamed, {plain_seconds:.1f} s plain: {ratio:.1f} x")
    print(f"largest difference of {len(ours)} coefficients: {np.abs(ours - theirs[: len(ours)]).max():.1e}")
    print(f"peak memory, features included: {peak:.2f} GiB, then {plain_peak:.2f} GiB")


def beside_forward_passes(num_images: int, size: int) -> None:
    """Both networks' forward passes alone, and with SVCCA at all cuts."""
    source = prepare_source(build_backbone(BackboneSpec(name="resnet50", weights="none", size=size)), (size, size))
    head = HeadSettings(num_outputs=2)
    models = [
        apply_strategy(name, source, source.cuts[-1], head, lr=1.0, seed=0)[0].eval() for name in ("ftl", "scratch")
    ]
    readers = [CutReader(model, source.cuts) for model in models]
    names = {cut.index: cut.name for cut in source.cuts}
    forward = comparing = 0.0
    moments: dict[int, Moments] = {}
    draws = torch.Generator().manual_seed(0)
    for _ in range(0, num_images, 20):
        images = torch.rand(20, 3, size, size, generator=draws)
        start = time.perf_counter()
        with torch.inference_mode():
            for model in models:
                model.features(images)
        forward += time.perf_counter() - start
        start = time.perf_counter()
        one, two = ({i: rows.numpy() for i, rows in reader(images).items()} for reader in readers)
        add_cuts(moments, one, two, names)
        comparing += time.perf_counter() - start
    start = time.perf_counter()
    for pair in moments.values():
        svcca(pair, max_components=num_images // 10)
    comparing += time.perf_counter() - start
    print(
        f"{len(moments)} cuts, {num_images} images at {size} px: {comparing / forward:.2f} x the forward passes alone"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--size", type=int, default=224)
    asked = parser.parse_args()
    against_lapack()
    beside_forward_passes(asked.images, asked.size)
