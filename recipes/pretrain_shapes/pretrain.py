"""Pretrain the packaged network on figures-on-clutter and write its safetensors and manifest.

`python recipes/pretrain_shapes/pretrain.py --out FOLDER` repeats what the package carries; README.md beside
this file says how long it takes and what to expect.
"""

import argparse
import copy
import hashlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import timm
import torch
import torch.nn.functional as F
from clutter import CLASSES, clutter_set
from safetensors.torch import save_file
from torch import Tensor, nn

from medgraft.backbones.packaged import PACKAGED_NAME, build_packaged

SIZE: Final = 64
SHIFT: Final = 6
LOG_EVERY: Final = 100
VALIDATE_EVERY: Final = 500
# Far from any training seed, so that no validation image was trained on.
VALIDATION_SEED_OFFSET: Final = 1_000_000


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--images", type=int, default=40_000)
    parser.add_argument("--val-images", type=int, default=5_200)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--lr", type=float, default=4e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--precision", choices=["auto", "bf16", "fp32"], default="auto")
    parser.add_argument("--out", type=Path, required=True, help="folder for the safetensors and the JSON")
    arguments = parser.parse_args()
    for name in ("steps", "images", "val_images", "batch", "threads"):
        if getattr(arguments, name) < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1, got {getattr(arguments, name)}")
    if arguments.images < arguments.batch:
        parser.error(f"--images must be at least --batch ({arguments.batch}), got {arguments.images}")
    return arguments


def choose_precision(asked: str) -> str:
    """`bf16` where the processor multiplies bfloat16 in hardware, else `fp32`; read, not timed."""
    if asked != "auto":
        return asked
    has_units = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    return "bf16" if has_units else "fp32"


def normalise(images: Tensor) -> Tensor:
    """Z-score of each image: (B, H, W) uint8 to (B, 1, H, W) float32."""
    pixels = images.unsqueeze(1).float() / 255.0
    mean = pixels.mean(dim=(1, 2, 3), keepdim=True)
    std = pixels.std(dim=(1, 2, 3), keepdim=True, correction=0)
    return (pixels - mean) / std.clamp_min(1e-6)


def augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Each image flipped along either axis and shifted by up to `SHIFT` px, edges repeated."""
    side = torch.arange(images.shape[-1])
    index = []
    for _ in range(2):
        flip = torch.randint(0, 2, (len(images), 1), generator=generator).bool()
        shift = torch.randint(-SHIFT, SHIFT + 1, (len(images), 1), generator=generator)
        index.append((torch.where(flip, side.flip(0), side) + shift).clamp(0, len(side) - 1))
    rows, columns = index
    return images[torch.arange(len(images))[:, None, None], rows[:, :, None], columns[:, None, :]]


def shuffled_batches(num_images: int, batch: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Endless row numbers (batch,), each epoch in a new order, its incomplete last batch left out."""
    while True:
        order = torch.randperm(num_images, generator=generator)
        for start in range(0, num_images - batch + 1, batch):
            yield order[start : start + batch]


@torch.inference_mode()
def accuracy(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Share of right top-1 answers in float32, 0 to 1."""
    network.eval()
    right = 0
    for start in range(0, len(images), 256):
        inputs = normalise(images[start : start + 256]).contiguous(memory_format=torch.channels_last)
        right += int((network(inputs).argmax(dim=1) == labels[start : start + 256]).sum())
    network.train()
    return right / len(images)


def train(
    network: nn.Module, data: dict[str, tuple[Tensor, Tensor]], arguments: argparse.Namespace, precision: str
) -> dict[int, float]:
    """Train in place; returns validation accuracy by step."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=arguments.lr, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, arguments.lr, total_steps=arguments.steps)
    generator = torch.Generator().manual_seed(arguments.seed)
    images, labels = data["train"]
    batches = shuffled_batches(len(images), arguments.batch, generator)
    curve: dict[int, float] = {}
    loss_sum, right, started = 0.0, 0, time.perf_counter()
    for step in range(1, arguments.steps + 1):
        rows = next(batches)
        inputs = normalise(augment(images[rows], generator)).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
            logits = network(inputs)
        loss = F.cross_entropy(logits.float(), labels[rows], label_smoothing=0.1)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        loss_sum, right = loss_sum + loss.item(), right + int((logits.argmax(1) == labels[rows]).sum())
        if step % LOG_EVERY == 0:
            train_accuracy = right / (LOG_EVERY * arguments.batch)
            seconds = time.perf_counter() - started
            print(
                f"step {step} loss {loss_sum / LOG_EVERY:.3f} acc {train_accuracy:.3f} s {seconds:.0f}",
                flush=True,
            )
            loss_sum, right = 0.0, 0
        if step % VALIDATE_EVERY == 0 or step == arguments.steps:
            curve[step] = accuracy(network, *data["val"])
            print(f"step {step} validation accuracy {curve[step]:.4f}", flush=True)
    return curve


def halved(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors as they are stored: float16, contiguous; counters stay integers."""
    return {
        name: (value.half() if value.is_floating_point() else value.clone()).contiguous()
        for name, value in state.items()
    }


def write(trunk: nn.Module, arguments: argparse.Namespace, precision: str, scores: dict[str, Any]) -> dict[str, Any]:
    """Write the safetensors and its manifest; returns the manifest."""
    arguments.out.mkdir(parents=True, exist_ok=True)
    file = arguments.out / f"{PACKAGED_NAME}.safetensors"
    save_file(halved(trunk.state_dict()), file, metadata={"format": "pt"})
    file.chmod(0o644)  # safetensors writes 0600, which a package must not carry
    manifest = {
        "name": PACKAGED_NAME,
        "file": file.name,
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        "licence": "Apache-2.0",
        "recipe": "recipes/pretrain_shapes",
        "source_task": {"name": "figures on clutter", "num_classes": len(CLASSES), "classes": list(CLASSES)},
        "input": {"channels": 1, "size": SIZE, "normalisation": "image"},
        "dtype": "float16",
        "num_params": sum(parameter.numel() for parameter in trunk.parameters()),
        "seed": arguments.seed,
        "steps": arguments.steps,
        "images": arguments.images,
        "batch": arguments.batch,
        "lr": arguments.lr,
        "threads": arguments.threads,
        "precision": precision,
        **scores,
        "versions": {"torch": torch.__version__, "timm": timm.__version__, "numpy": np.__version__},
    }
    text = json.dumps(manifest, indent=2) + "\n"
    (arguments.out / f"{PACKAGED_NAME}.json").write_text(text, encoding="utf-8")
    return manifest


def main() -> None:
    arguments = read_arguments()
    torch.set_num_threads(arguments.threads)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(arguments.seed)
    precision = choose_precision(arguments.precision)
    started = time.perf_counter()
    data = {}
    for split, num_images, offset in (
        ("train", arguments.images, 0),
        ("val", arguments.val_images, VALIDATION_SEED_OFFSET),
    ):
        images, labels = clutter_set(num_images, arguments.seed + offset, SIZE)
        data[split] = (torch.from_numpy(images), torch.from_numpy(labels))
    print(f"drew {arguments.images + arguments.val_images} images in {time.perf_counter() - started:.0f} s")
    trunk = build_packaged()
    network = nn.Sequential(trunk, nn.Linear(128, len(CLASSES))).to(memory_format=torch.channels_last)
    print(f"{precision}, {arguments.threads} thread(s), {len(CLASSES)} classes", flush=True)
    curve = train(network, data, arguments, precision)
    rounded = copy.deepcopy(network)
    rounded[0].load_state_dict(halved(trunk.state_dict()))
    scores = {
        "source_val_accuracy": accuracy(rounded, *data["val"]),
        "source_val_chance": 1.0 / len(CLASSES),
        "source_val_images": arguments.val_images,
        "source_val_accuracy_by_step": curve,
        "seconds": round(time.perf_counter() - started),
    }
    manifest = write(trunk, arguments, precision, scores)
    print(f"wrote {arguments.out / manifest['file']}: source accuracy {manifest['source_val_accuracy']:.4f}")


if __name__ == "__main__":
    main()
