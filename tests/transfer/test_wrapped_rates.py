"""Wrapping for several devices renames parameters; every tensor's rate is still what the plan says."""

import os
import subprocess
import sys

import pytest
import torch

SCRIPT = """
import torch
from accelerate import Accelerator

from medgraft.backbones.build import build_backbone
from medgraft.backbones.spec import BackboneSpec
from medgraft.transfer import HeadSettings, apply_strategy, lr_of, parameter_groups, prepare_source

accelerator = Accelerator(cpu=True)
assert accelerator.num_processes == 2
source = prepare_source(build_backbone(BackboneSpec(name="resnet18", weights="none", size=64)), 64)
for strategy in ("lwft", "discriminative", "tf"):
    cut = source.cuts[4] if strategy != "discriminative" else source.cuts[-1]
    model, plan = apply_strategy(strategy, source, cut, HeadSettings(num_outputs=2), lr=0.01, seed=0)
    groups = parameter_groups(model, plan, source, weight_decay=0.05)
    optimizer = torch.optim.AdamW([{k: g[k] for k in ("params", "lr", "weight_decay")} for g in groups])
    wrapped, stepper = accelerator.prepare(model, optimizer)
    assert type(wrapped).__name__ == "DistributedDataParallel"
    rates = {id(p): group["lr"] for group in stepper.param_groups for p in group["params"]}
    names = [name for name, _ in wrapped.named_parameters()]
    assert all(name.startswith("module.") for name in names)
    for name, p in wrapped.named_parameters():
        wanted = lr_of(plan, source, name.removeprefix("module."))
        assert rates.get(id(p), 0.0) == wanted, (strategy, name)
        assert p.requires_grad == (wanted > 0)
    assert len(set(rates.values())) >= (1 if strategy == "tf" else 2)
print("agreed")
torch.distributed.barrier()
torch.distributed.destroy_process_group()
"""


@pytest.mark.slow
@pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="this build of torch has no gloo")
def test_rates_survive_wrapping_for_two_processes(tmp_path):
    script = tmp_path / "rates.py"
    script.write_text(SCRIPT)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(script)]
    env = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=180)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("agreed") == 2
