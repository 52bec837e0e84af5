"""Images per second of training a ResNet-50, data included: medgraft against a loop as published code has it.

    python benchmarks/throughput.py --out throughput.json

Both loops read the same grey PNG files and run in turns within one process, so that whatever else the machine
does meets both. The reference decodes and transforms every image in every epoch with PIL and torchvision, in
`--workers` processes, and trains in float32 and the default layout with what torch sets by default. medgraft
decodes once (with as many threads), then trains with its own `train_model` and the engine it measures here;
the time of its epoch includes a validation on two images. Decoding is given apart, and spread over
`--epochs-amortised` epochs.
"""

import argparse
import dataclasses
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset, RandomSampler
from torchvision import transforms

from medgraft.backbones.build import build_backbone
from medgraft.backbones.spec import BackboneSpec
from medgraft.data.cohort.labelled import read_cohort
from medgraft.data.decoded.images import build_cache
from medgraft.run.doctor import doctor
from medgraft.train.augment import AUGMENTATIONS, augment_batch
from medgraft.train.batches import ImageSet, iterate
from medgraft.train.engine import Engine, choose_engine, forward, pick_device, running, to_channels_last
from medgraft.train.loop import train_model
from medgraft.train.objectives import make_objective
from medgraft.train.settings import TrainSettings
from medgraft.transfer.heads import HeadSettings
from medgraft.transfer.plan import ParameterGroup
from medgraft.transfer.source import prepare_source
from medgraft.transfer.strategies import apply_strategy

ARCHITECTURE = "resnet50"
SIDE = 224
FILE_SIDE = 512
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Loop:
    """One of the two: a block of training that returns its seconds, and what a step of it consists of."""

    block: Callable[[], float]
    breakdown: Callable[[], dict[str, float]]


def write_images(folder: Path, count: int) -> None:
    """Grey 8-bit PNG files with structure at several scales, which compress about as radiographs do."""
    rng = np.random.default_rng(0)
    for index in range(count):
        pixels = rng.normal(0, 3, (FILE_SIDE, FILE_SIDE))
        for side in (4, 16, 64):
            coarse = Image.fromarray(rng.normal(0, 160 / side**0.5, (side, side)).astype(np.float32))
            pixels += np.asarray(coarse.resize((FILE_SIDE, FILE_SIDE), Image.Resampling.BICUBIC))
        path = folder / ("healthy" if index % 2 else "ill") / f"{index:05d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((pixels + 128).clip(0, 255).astype(np.uint8)).save(path)


class FolderOfImages(Dataset[tuple[torch.Tensor, int]]):
    """As torchvision's ImageFolder: opened, converted to RGB and transformed at every access."""

    def __init__(self, folder: Path) -> None:
        self.classes = sorted(path.name for path in folder.iterdir())
        self.paths = sorted(folder.glob("*/*.png"))
        self.transform = transforms.Compose(
            [
                transforms.RandomResizedCrop(SIDE),
                transforms.RandomRotation(10),
                transforms.ToTensor(),
                transforms.Normalize(MEAN, STD),
            ]
        )

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        path = self.paths[index]
        with path.open("rb") as stream:
            image = Image.open(stream).convert("RGB")
        return self.transform(image), self.classes.index(path.parent.name)


def reference_loop(folder: Path, options: argparse.Namespace, device: str) -> Loop:
    data = FolderOfImages(folder)
    count = options.steps * options.batch
    loader = DataLoader(
        data,
        batch_size=options.batch,
        sampler=RandomSampler(data, replacement=count > len(data), num_samples=count),
        num_workers=options.workers,
        # Kinder than most published code, which starts its workers anew in every epoch.
        persistent_workers=options.workers > 0,
        pin_memory=device.startswith("cuda"),
    )
    model = timm.create_model(ARCHITECTURE, num_classes=2).to(device).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    criterion = nn.CrossEntropyLoss()

    def step(images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        optimizer.zero_grad()
        loss: torch.Tensor = criterion(model(images), targets)
        loss.backward()
        optimizer.step()
        return loss

    def block() -> float:
        start = time.perf_counter()
        total = 0.0
        for images, targets in loader:
            loss = step(images.to(device, non_blocking=True), targets.to(device, non_blocking=True))
            total += float(loss.detach())  # the running loss that such loops print
        wait_for(device)
        return time.perf_counter() - start

    def breakdown() -> dict[str, float]:
        start = time.perf_counter()
        for index in range(options.batch):
            data[index]
        decode = time.perf_counter() - start
        images, targets = torch.rand(options.batch, 3, SIDE, SIDE, device=device), torch.arange(options.batch) % 2
        compute = seconds_of(lambda: step(images, targets.to(device)), device)
        return {"decode and transform, one worker": decode, "forward, backward, step": compute}

    return Loop(block=block, breakdown=breakdown)


def seconds_of(step: Callable[[], Any], device: str, repeats: int = 2) -> float:
    step()
    wait_for(device)
    start = time.perf_counter()
    for _ in range(repeats):
        step()
    wait_for(device)
    return (time.perf_counter() - start) / repeats


def wait_for(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def medgraft_loop(
    folder: Path, work: Path, options: argparse.Namespace, device: str
) -> tuple[Loop, Engine, dict[str, float]]:
    """The loop, its engine, and the seconds of decoding, of tracing and of measuring the engine."""
    start = time.perf_counter()
    cohort = read_cohort(folder)
    decoded = build_cache(cohort, work / "cache", sides=(SIDE, SIDE))
    cached = time.perf_counter()
    source = prepare_source(build_backbone(BackboneSpec(name=ARCHITECTURE, weights="none")), (SIDE, SIDE))
    head = HeadSettings(num_outputs=1)
    model, _ = apply_strategy("ftl", source, source.cuts[-1], head, lr=1e-4, seed=0)
    traced = time.perf_counter()
    shape = (decoded.channels, SIDE, SIDE)
    engine = choose_engine(
        model, shape, batch_size=options.batch, device=device, is_deterministic=False, precision=options.precision
    )
    seconds = {"decode": cached - start, "trace": traced - cached, "measure": time.perf_counter() - traced}

    def images_of(rows: np.ndarray) -> ImageSet:
        return ImageSet(
            images=decoded.images,
            rows=rows,
            targets=cohort.targets[rows],
            intensity_max=255,
            task="binary",
            positive=1,
            num_classes=2,
        )

    train = images_of(np.random.default_rng(0).choice(len(decoded), options.steps * options.batch))
    # Two images, one of each class: the least that an epoch of `train_model` can end with.
    val = images_of(np.array([np.argmax(cohort.targets == 0), np.argmax(cohort.targets == 1)]))
    settings = TrainSettings(epochs=1, batch_size=options.batch, augment=AUGMENTATIONS[options.augment])
    folders = (work / f"block{number}" for number in range(10_000))

    def block() -> float:
        names, params = zip(*model.named_parameters(), strict=True)
        # The default of AdamW.
        groups = [ParameterGroup(params=params, names=names, lr=1e-4, weight_decay=0.01)]
        return train_model(model, groups, (train, val), settings, engine, next(folders)).seconds

    return Loop(block=block, breakdown=lambda: our_breakdown(model, train, settings, engine)), engine, seconds


def our_breakdown(model: nn.Module, data: ImageSet, settings: TrainSettings, engine: Engine) -> dict[str, float]:
    device = torch.device(engine.device)
    positions = np.arange(settings.batch_size)
    objective = make_objective(data, "none")
    model.to(device).train()
    if engine.is_channels_last:
        to_channels_last(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    draws = torch.Generator().manual_seed(0)

    def read() -> tuple[torch.Tensor, torch.Tensor]:
        images, targets, _ = next(iter(iterate(data, positions, settings.batch_size, device)))
        return images, targets

    images, targets = read()

    def step() -> None:
        objective(forward(model, images, engine), targets).backward()
        nn.utils.clip_grad_norm_(model.parameters(), settings.clip_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    with running(engine):
        return {
            "read from the cache": seconds_of(read, engine.device),
            "augment": seconds_of(lambda: augment_batch(images, settings.augment, draws), engine.device),
            "forward, backward, step": seconds_of(step, engine.device),
        }


def alternate(first: Loop, second: Loop, blocks: int) -> Iterator[tuple[float, float]]:
    """Seconds of a block of each, in turns; one block of each before counts as warm-up."""
    for number in range(blocks + 1):
        pair = first.block(), second.block()
        if number:
            yield pair


def measure(options: argparse.Namespace, work: Path) -> dict[str, Any]:
    device = pick_device(options.device)
    write_images(work / "images", options.images)
    reference = reference_loop(work / "images", options, device)
    ours, engine, seconds = medgraft_loop(work / "images", work, options, device)
    times = list(alternate(reference, ours, options.blocks))
    count = options.steps * options.batch
    theirs = count / statistics.median(pair[0] for pair in times)
    speed = count / statistics.median(pair[1] for pair in times)
    # Seconds per image, decoding spread over the epochs that one cache serves.
    with_cache = 1 / (1 / speed + seconds["decode"] / options.images / options.epochs_amortised)
    return {
        "device": device,
        "reference_images_per_second": theirs,
        "medgraft_images_per_second": speed,
        "medgraft_images_per_second_with_decoding": with_cache,
        "ratio": speed / theirs,
        "ratio_with_decoding": with_cache / theirs,
        "ratio_of_each_pair_of_blocks": [first / second for first, second in times],
        "epochs_amortised": options.epochs_amortised,
        "decode_images_per_second": options.images / seconds["decode"],
        "seconds_before_training": seconds,
        "seconds_of_blocks": times,
        "seconds_per_step": {"reference": reference.breakdown(), "medgraft": ours.breakdown()},
        "engine": dataclasses.asdict(engine),
        "options": {name: value for name, value in vars(options).items() if name != "out"},
        "environment": {check.name: check.message for check in doctor().checks},
    }


def print_report(found: dict[str, Any]) -> None:
    for loop, parts in found["seconds_per_step"].items():
        print(f"{loop}: " + ", ".join(f"{name} {1000 * value:.1f} ms" for name, value in parts.items()))
    engine = found["engine"]
    layout = "channels last" if engine["is_channels_last"] else "contiguous"
    print("| device | engine | reference | medgraft | ratio | with decoding | decoding |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: |")
    print(
        f"| {found['device']} | {engine['precision']}, {layout} | {found['reference_images_per_second']:.1f} "
        f"| {found['medgraft_images_per_second']:.1f} | {found['ratio']:.2f} × "
        f"| {found['ratio_with_decoding']:.2f} × ({found['epochs_amortised']} epochs) "
        f"| {found['decode_images_per_second']:.0f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=256, help="files to draw")
    parser.add_argument("--steps", type=int, help="per block; 2 on a CPU, 60 elsewhere")
    parser.add_argument("--batch", type=int, help="images per step; 32 on a CPU, 64 elsewhere")
    parser.add_argument("--blocks", type=int, default=4, help="measured blocks of each loop")
    parser.add_argument("--workers", type=int, default=min(16, os.cpu_count() or 1), help="of the reference")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto", choices=("auto", "float32", "bf16"))
    parser.add_argument("--augment", default="standard", choices=tuple(AUGMENTATIONS))
    parser.add_argument("--epochs-amortised", type=int, default=30, help="epochs that one decoding serves")
    parser.add_argument("--out", type=Path, default=Path("throughput.json"))
    options = parser.parse_args()
    is_cpu = pick_device(options.device) == "cpu"
    options.steps = options.steps or (2 if is_cpu else 60)
    options.batch = options.batch or (32 if is_cpu else 64)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory(prefix="medgraft-throughput-") as work:
        found = measure(options, Path(work))
    options.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print_report(found)


if __name__ == "__main__":
    main()
