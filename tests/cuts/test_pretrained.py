"""A load of weights is refused, accepted, or accepted with its partly random cuts marked."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from medgraft.backbones.load_report import LoadReport
from medgraft.backbones.spec import BackboneSpec
from medgraft.cuts import entry_of, find_cuts, judge_load, trace_network
from medgraft.errors import WeightsError
from medgraft.sources import load_weights, open_backbone
from medgraft.types import Cut

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared" / "weights"
SHAPE = (3, 64, 64)


def resnet() -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model("resnet18", num_classes=0)


def judge(network: nn.Module, file: Path, shape: tuple[int, ...] = SHAPE) -> tuple[LoadReport, tuple[Cut, ...]]:
    report = load_weights(network, file)
    entry = entry_of(network)
    trace = trace_network(network, shape, entry=entry)
    return judge_load(report, trace, find_cuts(trace, has_head=entry == "forward"))


def saved(tmp_path: Path, keep: Callable[[str], bool], state: dict[str, Tensor] | None = None) -> Path:
    state = state or resnet().state_dict()
    file = tmp_path / "weights.safetensors"
    save_file({name: tensor for name, tensor in state.items() if keep(name)}, file)
    return file


def test_a_full_load_marks_every_cut_pretrained(tmp_path: Path) -> None:
    report, cuts = judge(resnet(), saved(tmp_path, lambda _: True))
    assert report.matched_fraction == 1.0
    assert report.missing == ()
    assert not report.missing_tail
    assert report.last_pretrained_cut == 9
    assert all(cut.is_pretrained for cut in cuts)


def test_no_weights_at_all_mark_no_cut_pretrained() -> None:
    network = resnet()
    trace = trace_network(network, SHAPE, entry="forward_features")
    report, cuts = judge_load(LoadReport(source="none"), trace, find_cuts(trace, has_head=False))
    assert report == LoadReport(source="none")
    assert not any(cut.is_pretrained for cut in cuts)


def test_a_missing_tail_is_accepted_and_its_cuts_are_marked(tmp_path: Path) -> None:
    report, cuts = judge(resnet(), saved(tmp_path, lambda name: not name.startswith(("layer3.1", "layer4"))))
    assert report.missing_tail
    assert report.matched_fraction < 0.5
    assert report.last_pretrained_cut == 6
    assert [cut.is_pretrained for cut in cuts] == [True] * 6 + [False] * 3
    assert all(name.startswith(("layer3.1", "layer4")) for name in report.missing)


def test_the_fraction_counts_the_parameters_of_the_trunk_alone(tmp_path: Path) -> None:
    network = timm.create_model("resnet18", num_classes=1000)
    total = sum(p.numel() for name, p in network.named_parameters() if not name.startswith("fc."))
    tail = sum(p.numel() for name, p in network.named_parameters() if name.startswith("layer4.1."))
    file = saved(tmp_path, lambda name: not name.startswith(("fc.", "layer4.1.")), network.state_dict())
    report, _ = judge(timm.create_model("resnet18", num_classes=7), file)
    assert report.matched_fraction == pytest.approx(1 - tail / total)
    assert not any(name.startswith("fc.") for name in report.missing)


@pytest.mark.parametrize("hole", ["layer4.0.", "layer2.1.", "conv1.", "bn1.weight", "layer3.0.bn1.running_mean"])
def test_a_hole_below_a_filled_layer_is_refused_however_small_it_is(hole: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=rf"got none for {hole}.*, which lie below others that it fills"):
        judge(resnet(), saved(tmp_path, lambda name: not name.startswith(hole)))


def test_a_stem_of_another_number_of_channels_is_refused_with_the_way_out(tmp_path: Path) -> None:
    state = timm.create_model("resnet18", num_classes=0, in_chans=1).state_dict()
    with pytest.raises(WeightsError, match=r"reads 1 channel, the network's 3.*--backbone-arg in_chans=1"):
        judge(resnet(), saved(tmp_path, lambda _: True, state))
    report, _ = judge(
        timm.create_model("resnet18", num_classes=0, in_chans=1), saved(tmp_path, lambda _: True, state), (1, 64, 64)
    )
    assert report.matched_fraction == 1


def test_weights_without_any_statistics_are_refused_with_the_cause(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"lacks the statistics of its normalisation"):
        judge(resnet(), saved(tmp_path, lambda name: "running" not in name))


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_parts_of_weights_are_read_whole_by_any_part_or_their_index(suffix: str, tmp_path: Path) -> None:
    state = resnet().state_dict()
    names, count = list(state), 3
    index = {}
    for number in range(count):
        name = f"model-{number + 1:05d}-of-{count:05d}.{suffix}"
        part = {key: state[key].contiguous() for key in names[number::count]}
        save_file(part, tmp_path / name) if suffix == "safetensors" else torch.save(part, tmp_path / name)
        index |= dict.fromkeys(part, name)
    (tmp_path / f"model.{suffix}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    digests = set()
    for given in (f"model.{suffix}.index.json", *set(index.values())):
        report, _ = judge(resnet(), tmp_path / given)
        assert report.matched_fraction == 1
        digests.add(report.sha256)
    assert len(digests) == 1
    (tmp_path / f"model-00001-of-00003.{suffix}").unlink()
    with pytest.raises(WeightsError, match="part 2 of 3: put the others beside it"):
        judge(resnet(), tmp_path / f"model-00002-of-00003.{suffix}")
    with pytest.raises(WeightsError, match="model-00001-of-00003"):
        judge(resnet(), tmp_path / f"model.{suffix}.index.json")


def test_a_file_that_fills_nothing_but_the_head_is_refused(tmp_path: Path) -> None:
    network = timm.create_model("resnet18", num_classes=5)
    file = saved(tmp_path, lambda name: name.startswith("fc."), network.state_dict())
    with pytest.raises(WeightsError, match="got 0% from"):
        judge(timm.create_model("resnet18", num_classes=5), file)


def test_a_file_that_does_not_even_fill_the_stem_is_no_missing_tail(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="at least 90 %"):
        judge(resnet(), saved(tmp_path, lambda name: name == "conv1.weight"))


def test_another_width_behind_the_stem_is_no_missing_tail(tmp_path: Path) -> None:
    def chain(width: int) -> nn.Module:
        return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, width, 3), nn.Conv2d(width, width, 3))

    file = saved(tmp_path, lambda _: True, chain(6).state_dict())
    with pytest.raises(WeightsError, match=r"Missing: 2\.weight.*Not understood: 2\.bias, 2\.weight"):
        judge(chain(8), file)
    report, _ = judge(chain(8), saved(tmp_path, lambda name: name.startswith("0."), chain(8).state_dict()))
    assert report.missing_tail
    assert report.last_pretrained_cut == 1


def test_a_shallower_sibling_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"got none for layer1\.2\.conv1\.weight"):
        judge(timm.create_model("resnet34", num_classes=0), saved(tmp_path, lambda _: True))


@pytest.mark.real
@pytest.mark.parametrize(("depth", "count"), [(20, 10), (56, 28)])
def test_cifar_files_fill_the_example_networks(depth: int, count: int) -> None:
    file = SHARED / f"cifar10_resnet{depth}.th"
    if not file.is_file():
        pytest.skip("the shared weights are not beside the repository")
    name = f"{ROOT / 'examples' / 'cifar_resnet.py'}:resnet{depth}"
    backbone = open_backbone(BackboneSpec(name=name, weights=str(file), size=28))
    trace = trace_network(backbone.network, (3, 28, 28))
    report, cuts = judge_load(backbone.report, trace, find_cuts(trace, has_head=True))
    assert len(cuts) == count
    assert report.matched_fraction == 1.0
    assert report.missing == report.unexpected == report.wrong_shape == ()
    assert report.last_pretrained_cut == count
    assert cuts[-1].num_params == sum(p.numel() for p in backbone.network.parameters()) - 650


@pytest.mark.real
def test_the_mobilenet_trunk_misses_its_last_pointwise_layer() -> None:
    file = SHARED / "mobilenetv1_100_imagenet_trunk.safetensors"
    if not file.is_file():
        pytest.skip("the shared weights are not beside the repository")
    spec = BackboneSpec(name="mobilenetv1_100", args={"pad_type": "same", "bn_eps": 1e-3}, weights=str(file), size=128)
    backbone = open_backbone(spec)
    trace = trace_network(backbone.network, (3, 128, 128), entry="forward_features")
    report, cuts = judge_load(backbone.report, trace, find_cuts(trace, has_head=False))
    assert report.matched_fraction == pytest.approx(0.67, abs=0.005)
    assert report.missing_tail
    assert report.last_pretrained_cut == 13
    assert [cut.is_pretrained for cut in cuts] == [True] * 13 + [False]
    assert all(name.startswith(("blocks.4.1.", "bn2.")) for name in report.missing)
    assert report.unexpected == report.wrong_shape == ()
