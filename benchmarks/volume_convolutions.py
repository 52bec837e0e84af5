"""Whether torch's 3D convolutions on this CPU are right: random shapes, each precision, against float64.

    python benchmarks/volume_convolutions.py --minutes 2

Shapes run in child processes, thirty at a time, because some overwrite memory: a child that dies or hangs is a finding,
as is a gradient that differs from float64 by more than 3 % of its norm. Freed memory is filled with NaN before each
shape, so that what an operation forgets to write shows.
"""

import argparse
import json
import random
import subprocess
import sys
import time
from collections import Counter

import torch
from torch.nn import functional as F

SIDES = (1, 2, 3, 4, 5, 7, 8, 12)
KERNELS = ((3, 3, 3), (1, 3, 3), (3, 1, 3), (3, 3, 1), (1, 1, 1))
TOLERANCE = 0.03


def shapes(rng: random.Random, count: int) -> list[dict[str, object]]:
    """Random layers and inputs, small enough for float64."""
    found: list[dict[str, object]] = []
    while len(found) < count:
        sides, channels = [rng.choice(SIDES) for _ in range(3)], rng.choice((8, 16, 64))
        batch = rng.choice((1, 2, 7, 16))
        if batch * channels * sides[0] * sides[1] * sides[2] <= 400_000:
            groups, stride = rng.choice((1, 1, channels)), rng.choice(((1, 1, 1), (2, 2, 2)))
            found.append(
                {"sides": sides, "kernel": rng.choice(KERNELS), "channels": channels, "batch": batch, "groups": groups,
                 "stride": stride}
            )  # fmt: skip
    return found


def child(dtype: torch.dtype) -> None:
    """Read shapes from standard input, print each before it runs and its verdict after."""
    for line in sys.stdin:
        shape = json.loads(line)
        print(line.strip(), flush=True)
        channels, groups, kernel = shape["channels"], shape["groups"], shape["kernel"]
        torch.full((2**18,), float("nan"))  # freed at once: its memory is handed out again
        x = torch.randn(shape["batch"], channels, *shape["sides"])
        w = torch.randn(channels, channels // groups, *kernel)
        options = {"padding": [k // 2 for k in kernel], "stride": shape["stride"], "groups": groups}
        results = []
        for kind in (dtype, torch.float64):
            one, two = (tensor.to(dtype).to(kind, copy=True).requires_grad_() for tensor in (x, w))
            out = F.conv3d(one, two, **options)
            grads = torch.autograd.grad(out, (one, two), torch.ones_like(out))
            results.append([tensor.detach().double() for tensor in (out, *grads)])
        errors = [float((a - b).norm() / b.norm().clamp_min(1e-12)) for a, b in zip(*results, strict=True)]
        wrong = [name for name, error in zip(("output", "input gradient", "kernel gradient"), errors, strict=True)
                 if not error < TOLERANCE]  # fmt: skip
        print(json.dumps({"wrong": wrong, "smallest": min(shape["sides"])}), flush=True)


def main() -> None:
    """Run for some minutes and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=2.0, help="per precision")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--child", choices=("float32", "bfloat16"))
    options = parser.parse_args()
    if options.child:
        torch.set_num_threads(2)
        child(getattr(torch, options.child))
        return
    for dtype in ("float32", "bfloat16"):
        rng, tried, found = random.Random(options.seed), 0, Counter[str]()
        end = time.monotonic() + 60 * options.minutes
        while time.monotonic() < end:
            text = "\n".join(json.dumps(shape) for shape in shapes(rng, 30))
            command = [sys.executable, __file__, "--child", dtype]
            try:
                done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=60, check=False)
                lines = done.stdout.splitlines()
                found["processes died"] += done.returncode != 0
            except subprocess.TimeoutExpired as error:
                lines = (error.stdout or b"").decode().splitlines()
                found["processes hung"] += 1
            verdicts = [json.loads(line) for line in lines if line.startswith('{"wrong"')]
            tried += len(verdicts)
            for verdict in verdicts:
                for name in verdict["wrong"]:
                    found[f"{name} wrong, smallest side {verdict['smallest']}"] += 1
        print(f"{dtype}: {tried} shapes, torch {torch.__version__}")
        for name, count in sorted(found.items()):
            print(f"  {name}: {count}")


if __name__ == "__main__":
    main()
