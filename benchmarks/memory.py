"""Anonymous memory of `medgraft fit` against the number of images: it should not grow.

    python benchmarks/memory.py --out memory.json
    python benchmarks/memory.py --job fit --out memory_fit.json

Each number of images gets a process of its own, in which a thread samples RssAnon of /proc/self/status: private
memory, without the mapped cache of decoded images. The job ``pieces`` reads, decodes, audits, groups and splits
all images and then trains a fixed number of steps with a validation on all validation images; ``fit`` is the
whole command with one cut, one epoch and its 2 000 bootstrap replicates. Linux only.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SIDE = 32
IMAGES_PER_PATIENT = 2
STEPS = 10
BATCH = 32
STATUS = Path("/proc/self/status")


def write_cohort(folder: Path, count: int) -> None:
    """A table of small grey PNG files that share an anatomy, two of each patient; bright spots are ill."""
    rng = np.random.default_rng(0)
    anatomy = field_of(rng, 4)
    lines = ["path,label,patient"]
    for index in range(count):
        is_ill = index // IMAGES_PER_PATIENT % 2 == 0
        pixels = 0.5 * anatomy + field_of(rng, 6) + 0.5 * field_of(rng, SIDE)
        if is_ill:
            row, column = rng.integers(4, SIDE - 8, 2)
            pixels[row : row + 4, column : column + 4] += 3
        path = folder / f"{index // 1000:03d}" / f"{index:06d}.png"
        if index % 1000 == 0:
            path.parent.mkdir(parents=True)
        Image.fromarray((pixels * 30 + 110).clip(0, 255).astype(np.uint8)).save(path, compress_level=1)
        name = path.relative_to(folder).as_posix()
        lines.append(f"{name},{'ill' if is_ill else 'healthy'},p{index // IMAGES_PER_PATIENT}")
    (folder / "cases.csv").write_text("\n".join(lines) + "\n")


def field_of(rng: np.random.Generator, side: int) -> np.ndarray:
    coarse = Image.fromarray(rng.normal(0, 1, (side, side)).astype(np.float32))
    return np.asarray(coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC))


class Sampler:
    """The highest RssAnon, in bytes, of each phase that was entered."""

    def __init__(self) -> None:
        self.peaks: dict[str, int] = {}
        self.seconds: dict[str, float] = {}
        self.phase = ""
        self.started = time.perf_counter()
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._sample, daemon=True)

    def enter(self, phase: str) -> None:
        """Close the phase before and begin `phase`."""
        now = time.perf_counter()
        if self.phase:
            self.peaks[self.phase] = max(self.peaks.get(self.phase, 0), rss_anon())
            self.seconds[self.phase] = self.seconds.get(self.phase, 0.0) + now - self.started
        self.phase, self.started = phase, now

    def _sample(self) -> None:
        while not self.stop.wait(0.01):
            phase = self.phase
            self.peaks[phase] = max(self.peaks.get(phase, 0), rss_anon())

    def run(self, job: Callable[["Sampler"], None]) -> dict[str, Any]:
        """Highest RssAnon while `job` runs: in all, and of each phase with its seconds."""
        self.enter("start")
        self.thread.start()
        job(self)
        self.enter("end")
        self.stop.set()
        self.thread.join()
        return {"peak": max(self.peaks.values()), "phases": self.peaks, "seconds": self.seconds}


def rss_anon() -> int:
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) * 1024


def run_pieces(source: Path, out: Path, sampler: Sampler) -> None:
    """What `fit` does before and during its first training, with a fixed number of steps."""
    import dataclasses

    from medgraft.config import make_config
    from medgraft.listener import Listener
    from medgraft.search.trial import run_trial
    from medgraft.setup.plan import context_of, material_of, recipe_of
    from medgraft.train.engine import Engine

    config = make_config(str(source), options=options_of(source))
    sampler.enter("prepare")
    material = material_of(config, Listener(say=lambda text: sampler.enter(f"after: {text[:60]}")))
    context = context_of(material, Engine(device="cpu"), out)
    few = context.study.train
    few = dataclasses.replace(few, rows=few.rows[: STEPS * BATCH], targets=few.targets[: STEPS * BATCH])
    study = dataclasses.replace(context.study, train=few)
    sampler.enter("train")
    spec = recipe_of(config, material).spec("ftl", len(material.source.cuts), seed=0)
    run_trial(spec, dataclasses.replace(context, study=study))


def run_fit(source: Path, out: Path, sampler: Sampler) -> None:
    from medgraft.config import make_config
    from medgraft.listener import Listener
    from medgraft.run.fit import fit

    config = make_config(str(source), options=options_of(source))
    sampler.enter("prepare")
    fit(config, out, listener=Listener(say=lambda text: sampler.enter(f"after: {text[:60]}")))


JOBS: dict[str, Callable[[Path, Path, Sampler], None]] = {"pieces": run_pieces, "fit": run_fit}


def options_of(source: Path) -> dict[str, Any]:
    return {
        "data": {"cache": str(source.parent / "decoded")},
        "backbone": {"name": "shapes_resnet18", "weights": "packaged", "size": SIDE},
        "transfer": {"cut": "5"},
        "train": {"epochs": 1, "batch_size": BATCH, "precision": "float32"},
        "device": "cpu",
        "offline": True,
        # Nothing is timed, so that both sizes are computed in the same arithmetic.
        "deterministic": True,
    }


def measure_here(options: argparse.Namespace) -> None:
    """In the process of its own: run the job and print what was measured as one line of JSON."""
    import torch

    torch.set_num_threads(1)
    source = options.work / "images" / "cases.csv"
    found = Sampler().run(lambda sampler: JOBS[options.job](source, options.work / "run", sampler))
    print(json.dumps(found))


def measure(job: str, count: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="medgraft-memory-") as name:
        write_cohort(Path(name) / "images", count)
        command = [sys.executable, __file__, "--job", job, "--measure-in", name]
        # The test ledger of the person who runs this is not touched.
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "MEDGRAFT_HOME": str(Path(name) / "home")}
        done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return {"images": count, **json.loads(done.stdout.splitlines()[-1])}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, nargs="+", default=[1_000, 50_000])
    parser.add_argument("--job", choices=tuple(JOBS), default="pieces")
    parser.add_argument("--out", type=Path, default=Path("memory.json"))
    parser.add_argument("--measure-in", type=Path, dest="work", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        measure_here(options)
        return
    rows = [measure(options.job, count) for count in options.images]
    for row in rows:
        row["ratio"] = row["peak"] / rows[0]["peak"]
        row["growth"] = row["peak"] - rows[0]["peak"]
    options.out.write_text(json.dumps({"job": options.job, "rows": rows}, indent=1) + "\n", encoding="utf-8")
    print("| images | peak RssAnon | ratio | growth | highest phase | seconds |")
    print("| ---: | ---: | ---: | ---: | --- | ---: |")
    for row in rows:
        phase = max(row["phases"], key=row["phases"].get)
        seconds = sum(row["seconds"].values())
        print(
            f"| {row['images']} | {row['peak'] / 2**20:.1f} MiB | {row['ratio']:.3f} "
            f"| {row['growth'] / 2**20:.1f} MiB | {phase} | {seconds:.0f} |"
        )


if __name__ == "__main__":
    main()
