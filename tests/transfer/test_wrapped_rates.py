"""Wrapping for several devices renames parameters; every tensor's rate is still what the plan says."""

import os
import subprocess
import sys

import pytest
import torch
from torch.nn.parallel import DistributedDataParallel

from families import EVERY_FAMILY, TRANSFORMERS
from medgraft.transfer import STRATEGIES, HeadSettings, apply_strategy, lr_of, parameter_groups
from medgraft.transfer.blocks import block_index

SCRIPT = """
import torch
from accelerate import Accelerator

from medgraft.backbones.build import build_backbone
from medgraft.backbones.spec import BackboneSpec
from medgraft.transfer import HeadSettings, apply_strategy, lr_of, parameter_groups, prepare_source

accelerator = Accelerator(cpu=True)
assert accelerator.num_processes == 2
source = prepare_source(build_backbone(BackboneSpec(name="resnet18", weights="none", size=64)), (64, 64))
for strategy in ("lwft", "discriminative", "tf"):
    cut = source.cuts[4] if strategy != "discriminative" else source.cuts[-1]
    model, plan = apply_strategy(strategy, source, cut, HeadSettings(num_outputs=2), lr=0.01, seed=0)
    groups = parameter_groups(model, plan, source, weight_decay=0.05)
    optimizer = torch.optim.AdamW([group.for_torch() for group in groups])
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


@pytest.fixture(scope="module")
def group(tmp_path_factory):
    """A group of one process: enough for the wrapper, which renames every parameter."""
    if not torch.distributed.is_gloo_available():
        pytest.skip("this build of torch has no gloo")
    place = tmp_path_factory.mktemp("group") / "store"
    torch.distributed.init_process_group("gloo", init_method=f"file://{place}", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@EVERY_FAMILY
def test_rates_survive_the_wrapper_on_every_family(group, source_of, name, size):
    source = source_of(name, size)
    for strategy in (s for s in STRATEGIES if STRATEGIES[s].fitting == "gradient"):
        if strategy == "lora" and name not in TRANSFORMERS:
            continue
        cut = source.cuts[len(source.cuts) // 2] if STRATEGIES[strategy].has_depth else source.cuts[-1]
        model, plan = apply_strategy(strategy, source, cut, HeadSettings(num_outputs=2), lr=0.01, seed=0)
        groups = parameter_groups(model, plan, source, weight_decay=0.05)
        optimizer = torch.optim.SGD([group.for_torch() for group in groups])
        wrapped = DistributedDataParallel(model)
        rates = {id(p): g["lr"] for g in optimizer.param_groups for p in g["params"]}
        highest = [max(lrs) for lrs in zip(*(phase.lrs for phase in plan.phases), strict=True)] if plan.phases else None
        for parameter_name, parameter in wrapped.named_parameters():
            assert parameter_name.startswith("module.")
            plain = parameter_name.removeprefix("module.")
            if plain in model.never_trained:
                assert id(parameter) not in rates
                continue
            wanted = lr_of(plan, source, plain)
            if highest is not None:
                wanted = highest[block_index(source, plain, len(plan.blocks))]
            assert rates.get(id(parameter), 0.0) == pytest.approx(wanted, rel=1e-12), (strategy, plain)
