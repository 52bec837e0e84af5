"""What is stored comes back to the bit, for every way a strategy changes a network, on every family."""

import pytest
import torch

from families import EVERY_FAMILY, TRANSFORMERS, source_of
from medgraft.deploy import Artefact, load_artefact, save_artefact
from medgraft.deploy.artefact import WeightsOrigin
from medgraft.transfer import HeadSettings, apply_strategy
from medgraft.transfer.adapters import merge_lora
from medgraft.transfer.slim import Slim
from medgraft.types import Preprocessing

HEAD = HeadSettings(num_outputs=2)


@pytest.mark.parametrize("strategy", ["ttl", "tf", "wtst", "lora"])
@EVERY_FAMILY
def test_a_stored_model_comes_back_to_the_bit(tmp_path, name, size, strategy):
    if strategy == "lora" and name not in TRANSFORMERS:
        pytest.skip("adapters are for transformers")
    source = source_of(name, size)
    cut = source.cuts[-1] if strategy == "lora" else source.cuts[len(source.cuts) // 2]
    model, _ = apply_strategy(strategy, source, cut, HEAD, lr=0.01, seed=0)
    with torch.no_grad():  # as if trained: no tensor is what a constructor would make
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(torch.rand_like(tensor), alpha=0.01)
    merge_lora(model.trunk.network)
    artefact = Artefact(
        task="multiclass",
        classes=("sick", "well"),
        positive=None,
        strategy=strategy,
        cut=model.trunk.cut,
        head=HEAD,
        preprocessing=Preprocessing(
            sides=(size, size),
            channels=3,
            intensity_max=255,
            normalisation=source.backbone.normalisation,
            mean=source.backbone.mean,
            std=source.backbone.std,
        ),
        thresholds={},
        temperature=1.0,
        weights=WeightsOrigin(),
        slim=Slim(depth=cut.index, width=0.5) if strategy == "tf" else None,
    )
    folder = save_artefact(tmp_path / "model", model, artefact, source.backbone)
    loaded = load_artefact(folder).network
    stored, found = model.state_dict(), loaded.state_dict()
    assert stored.keys() == found.keys()
    assert all(torch.equal(stored[key], found[key]) for key in stored)
    images = torch.rand(2, 3, size, size)
    with torch.inference_mode():
        assert torch.equal(model.eval()(images), loaded(images))
