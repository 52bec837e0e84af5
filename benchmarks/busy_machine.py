"""Images per second of a training beside other processes that keep the machine busy, by how threads wait.

    python benchmarks/busy_machine.py --out busy.json

Every setting trains MobileNet v1 at 96 px in a process of its own, on an idle machine and beside as many busy processes
as there are cores. Settings take turns, `--rounds` times, and the median counts. `default` is what torch does when
nobody says anything; `medgraft` what `import medgraft` makes of it; the numbers are rounds that a waiting thread spins.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

SETTINGS = {
    "default": {},
    "one thread": {"OMP_NUM_THREADS": "1"},
    "0": {"GOMP_SPINCOUNT": "0"},
    "1000": {"GOMP_SPINCOUNT": "1000"},
    "2000": {"GOMP_SPINCOUNT": "2000"},
    "4000": {"GOMP_SPINCOUNT": "4000"},
    "10000": {"GOMP_SPINCOUNT": "10000"},
    "100000": {"GOMP_SPINCOUNT": "100000"},
    "passive": {"OMP_WAIT_POLICY": "PASSIVE"},
    "medgraft": {},
}
OWN = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "OMP_NUM_THREADS")


def train(seconds: float) -> float:
    """Images per second of training steps."""
    import timm
    import torch

    torch.manual_seed(0)
    model = timm.create_model("mobilenetv1_100", num_classes=2).train()
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)
    images, targets = torch.rand(16, 3, 96, 96), torch.randint(0, 2, (16,))
    start, done = 0.0, 0
    while True:
        loss = torch.nn.functional.cross_entropy(model(images), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        done += len(images)
        if not start:  # the first step warms up
            start, done = time.perf_counter(), 0
        elif time.perf_counter() - start > seconds and done:
            return done / (time.perf_counter() - start)


def measured(name: str, seconds: float) -> float:
    environment = {key: value for key, value in os.environ.items() if key not in OWN} | SETTINGS[name]
    command = [sys.executable, __file__, "--child", "--seconds", str(seconds)]
    if name == "medgraft":
        command.append("--with-medgraft")
    return float(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0, help="of training per measurement")
    parser.add_argument("--out", type=Path, default=Path("busy.json"))
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--with-medgraft", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.with_medgraft:
        import medgraft  # noqa: F401 - imported for what it does to the waiting
    if options.child:
        print(train(options.seconds))
        return
    num_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    found: dict[str, dict[str, list[float]]] = {name: {"idle": [], "busy": []} for name in SETTINGS}
    for _ in range(options.rounds):
        for state in ("idle", "busy"):
            others = [
                subprocess.Popen([sys.executable, "-c", "while True: pass"])
                for _ in range(num_cores if state == "busy" else 0)
            ]
            try:
                for name in SETTINGS:
                    found[name][state].append(measured(name, options.seconds))
            finally:
                for process in others:
                    process.kill()
                    process.wait()
    medians = {
        name: {state: statistics.median(values) for state, values in told.items()} for name, told in found.items()
    }
    print(f"{num_cores} cores, images/s     idle     busy   idle/default   busy/one thread")
    for name, told in medians.items():
        shares = told["idle"] / medians["default"]["idle"], told["busy"] / medians["one thread"]["busy"]
        print(f"{name:<20} {told['idle']:>8.1f} {told['busy']:>8.1f} {shares[0]:>14.2f} {shares[1]:>17.2f}")
    options.out.write_text(json.dumps({"cores": num_cores, "rounds": found}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
