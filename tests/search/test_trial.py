"""Trials are remembered, resumed, told when damaged, and read training and validation rows only."""

import dataclasses
import inspect
import json

import numpy as np
import pytest
import torch

import medgraft.search.trial as room
from medgraft.as_json import from_json, to_json
from medgraft.backbones import BackboneSpec, build_backbone
from medgraft.errors import CutError, RunError
from medgraft.metrics.classification import auprc, auroc
from medgraft.search import (
    TrialContext,
    TrialSpec,
    choose,
    drive,
    forget_weights,
    load_trial_model,
    run_trial,
    two_stage,
)
from medgraft.study import Study
from medgraft.train import predict_probs
from medgraft.train.classical import fit_linear
from medgraft.train.features import FeatureReader, extract_features
from medgraft.transfer import STRATEGIES, HeadSettings, apply_strategy, prepare_source


def same(one, other):
    first, second = (
        {k: v for k, v in dataclasses.asdict(t).items() if k not in ("val_outputs", "history", "seconds", "folder")}
        for t in (one, other)
    )
    rows, other_rows = (
        [dataclasses.replace(row, seconds=0.0, val_seconds=0.0) for row in t.history] for t in (one, other)
    )
    return first == second and rows == other_rows and np.array_equal(one.val_outputs, other.val_outputs)


class Killed(BaseException):
    """As sudden as a signal."""


def test_a_trial_says_what_it_did(context, spec_of):
    told = []
    spec = spec_of(2)
    trial = run_trial(spec, context, lambda *place: told.append(place))
    assert told == [(1, 3), (2, 3), (3, 3)]
    assert (trial.spec, trial.cut) == (spec, context.source.cuts[1])
    found = context.study.val_predictions(trial.val_outputs)
    assert trial.scores == {"auprc": auprc(found), "auroc": auroc(found)}
    assert trial.score == max(row.scores["auprc"] for row in trial.history)
    assert trial.history[trial.best_epoch - 1].scores == trial.scores
    assert trial.num_params == trial.cut.num_params + trial.cut.channels + 1
    assert trial.train_macs == 3 * 32 * 3 * (trial.cut.macs + trial.cut.channels)
    assert trial.seconds == pytest.approx(sum(row.seconds for row in trial.history))
    assert sorted(path.name for path in trial.folder.iterdir()) == [
        "best.safetensors",
        "history.csv",
        "plan.json",
        "result.json",
        "val_outputs.npy",
    ]


def test_a_second_run_trains_nothing(context, spec_of, monkeypatch):
    first = run_trial(spec_of(2), context)
    monkeypatch.setattr(room, "train_model", None)
    again = run_trial(spec_of(2), context)
    assert same(first, again)
    assert again.seconds == first.seconds


def test_different_specifications_are_different_trials(spec_of):
    specs = [
        spec_of(1),
        spec_of(2),
        spec_of(1, seed=1),
        spec_of(1, lr=0.1),
        spec_of(1, epochs=4),
        spec_of(1, strategy="frozen"),
        dataclasses.replace(spec_of(1), weight_decay=0.0),
        dataclasses.replace(spec_of(1), head=dataclasses.replace(spec_of(1).head, kind="flattened")),
    ]
    assert len({spec.key() for spec in specs}) == len(specs)
    assert spec_of(1).key() == spec_of(1).key()


def test_the_search_reads_training_and_validation_rows_only(context, spec_of):
    tried = {}

    def scored(batch):
        for cut, _role in batch:
            tried[cut.index] = run_trial(spec_of(cut.index, epochs=1), context)
        return [tried[cut.index].score for cut, _role in batch]

    drive(two_stage(context.source.cuts), scored)
    choose(
        {index: [context.study.val_predictions(trial.val_outputs)] for index, trial in tried.items()},
        context.source.cuts,
        {index: trial.num_params for index, trial in tried.items()},
        "compact",
        replicates=100,
    )
    assert context.study.train.images.read == set(range(48))
    assert not {"test", "cohort"} & {*inspect.signature(TrialContext).parameters, *inspect.signature(Study).parameters}


@pytest.mark.parametrize("killed_after", [1, 3])
@pytest.mark.usefixtures("writes_always")
def test_a_killed_trial_goes_on_where_it_was(context, spec_of, tmp_path, killed_after):
    whole = run_trial(spec_of(3), dataclasses.replace(context, folder=tmp_path / "whole"))

    def kill(epoch, _epochs):
        if epoch == killed_after:
            raise Killed

    with pytest.raises(Killed):
        run_trial(spec_of(3), context, kill)
    assert not (context.folder / spec_of(3).key() / "result.json").exists()
    told = []
    resumed = run_trial(spec_of(3), context, lambda epoch, _: told.append(epoch))
    assert told == list(range(killed_after + 1, 4))
    assert same(whole, resumed)
    assert not (resumed.folder / "checkpoint.safetensors").exists()


@pytest.mark.parametrize("name", ["_write", "remove_checkpoint"])
def test_a_trial_killed_while_it_is_filed_goes_on(context, spec_of, tmp_path, monkeypatch, name):
    whole = run_trial(spec_of(2), dataclasses.replace(context, folder=tmp_path / "whole"))

    def die(*_args):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(room, name, die)
        with pytest.raises(Killed):
            run_trial(spec_of(2), context)
    assert same(whole, run_trial(spec_of(2), context))


def test_the_loaded_model_gives_the_recorded_validation_outputs(context, spec_of):
    trial = run_trial(spec_of(2), context)
    model, plan = load_trial_model(trial, context)
    assert not model.training
    assert plan.cut == 2
    np.testing.assert_array_equal(predict_probs(model, context.study.val, context.engine), trial.val_outputs)
    assert not any("top" in name for name in model.state_dict())


def test_a_frozen_trial_leaves_the_trunk_as_it_was(context, spec_of):
    trial = run_trial(dataclasses.replace(spec_of(3, strategy="frozen"), solver="gradient"), context)
    model, _ = load_trial_model(trial, context)
    before = context.source.backbone.network.state_dict()
    kept = {name.removeprefix("trunk.network."): value for name, value in model.state_dict().items()}
    assert all(torch.equal(kept[name], before[name]) for name in kept if name in before)
    assert len(set(kept) & set(before)) >= 18
    # One forward pass of the trunk; the head alone learns.
    assert trial.train_macs == 3 * 32 * (trial.cut.macs + 3 * trial.cut.channels)


def test_forgotten_weights_are_told_and_the_result_stays(context, spec_of, monkeypatch):
    trial = run_trial(spec_of(2), context)
    forget_weights(trial)
    forget_weights(trial)
    with pytest.raises(RunError, match=r"expected the weights of a finished trial at .* Delete"):
        load_trial_model(trial, context)
    monkeypatch.setattr(room, "train_model", None)
    assert same(trial, run_trial(spec_of(2), context))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("result.json", b""),
        ("result.json", b"{}"),
        ("val_outputs.npy", b""),
        ("val_outputs.npy", b"\x93NUMPY"),
        ("history.csv", b"epoch,lr\n1,a\n"),
        ("history.csv", b"step\n1\n"),
    ],
)
def test_a_damaged_trial_is_told(context, spec_of, name, content):
    trial = run_trial(spec_of(1, epochs=1), context)
    (trial.folder / name).write_bytes(content)
    with pytest.raises(RunError, match=r"could not read the finished trial in .* Delete that folder"):
        run_trial(spec_of(1, epochs=1), context)


def test_damaged_weights_of_a_trial_are_told(context, spec_of):
    trial = run_trial(spec_of(1, epochs=1), context)
    (trial.folder / "best.safetensors").write_bytes(b"half")
    with pytest.raises(RunError, match="could not read the weights"):
        load_trial_model(trial, context)


def test_a_full_disk_leaves_no_finished_trial(context, spec_of, monkeypatch):
    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(np, "save", full)
        with pytest.raises(RunError, match=r"No space left on device\. Free some space"):
            run_trial(spec_of(1, epochs=1), context)
    assert not (context.folder / spec_of(1, epochs=1).key() / "result.json").exists()
    assert run_trial(spec_of(1, epochs=1), context).best_epoch == 1


@pytest.mark.parametrize("cut", [0, -1, 4])
def test_a_cut_out_of_range_is_refused(context, spec_of, cut):
    with pytest.raises(CutError, match=f"expected a cut from 1 to 3, got {cut}"):
        run_trial(spec_of(cut), context)


@pytest.mark.parametrize("kind", ["svm", "random-forest", "logistic", "knn", "gradient-boosting"])
def test_a_hybrid_is_solved_and_comes_back(context, spec_of, kind, monkeypatch):
    monkeypatch.setattr("medgraft.train.classical._NUM_TREES", 10)
    spec = dataclasses.replace(spec_of(3, strategy="hybrid"), head=HeadSettings(num_outputs=1, kind=kind))
    trial = run_trial(spec, context)
    assert (trial.best_epoch, trial.history) == (0, ())
    model, _ = load_trial_model(trial, context)
    np.testing.assert_allclose(predict_probs(model, context.study.val, context.engine), trial.val_outputs, atol=1e-5)
    assert trial.num_params > trial.cut.num_params
    # One forward pass over the training images is all it costs.
    assert trial.train_macs == 32 * trial.cut.macs


def test_frozen_features_are_computed_once_for_all_heads(context, spec_of, monkeypatch):
    run_trial(spec_of(3, strategy="frozen"), context)
    monkeypatch.setattr("medgraft.train.features.extract_features", None)
    run_trial(dataclasses.replace(spec_of(3, strategy="hybrid"), head=HeadSettings(num_outputs=1, kind="svm")), context)


@pytest.mark.parametrize("strategy", ["scratch", "lwft", "tf", "wtst", "gradual", "lp-ft", "discriminative", "l2sp"])
def test_every_strategy_comes_back_from_its_folder(context, spec_of, strategy):
    spec = spec_of(3 if not STRATEGIES[strategy].has_depth else 1, strategy=strategy)
    trial = run_trial(spec, context)
    model, _ = load_trial_model(trial, context)
    np.testing.assert_array_equal(predict_probs(model, context.study.val, context.engine), trial.val_outputs)


@pytest.mark.parametrize("killed_after", [1, 2])
@pytest.mark.parametrize("strategy", [n for n, s in STRATEGIES.items() if s.fitting == "gradient" and n != "lora"])
@pytest.mark.usefixtures("writes_always")
def test_a_strategy_killed_in_the_middle_goes_on_to_the_bit(context, spec_of, tmp_path, strategy, killed_after):
    spec = spec_of(3 if not STRATEGIES[strategy].has_depth else 1, strategy=strategy)
    whole = run_trial(spec, dataclasses.replace(context, folder=tmp_path / "whole"))

    def kill(epoch, _epochs):
        if epoch == killed_after:
            raise Killed

    with pytest.raises(Killed):
        run_trial(spec, context, kill)
    assert same(whole, run_trial(spec, context))


@pytest.mark.usefixtures("writes_always")
def test_adapters_killed_in_the_middle_go_on_to_the_bit(context, spec_of, tmp_path):
    args = {"img_size": 8, "patch_size": 4, "depth": 2, "embed_dim": 12, "num_heads": 2, "in_chans": 1}
    spec = BackboneSpec(name="vit_tiny_patch16_224", args=args, weights="none", size=8)
    context = dataclasses.replace(context, source=prepare_source(build_backbone(spec), (8, 8)))
    asked = dataclasses.replace(spec_of(len(context.source.cuts), strategy="lora"), source=context.source.spec)
    whole = run_trial(asked, dataclasses.replace(context, folder=tmp_path / "whole"))

    def kill(epoch, _epochs):
        if epoch == 1:
            raise Killed

    with pytest.raises(Killed):
        run_trial(asked, context, kill)
    found = run_trial(asked, context)
    assert same(whole, found)
    model, _ = load_trial_model(found, context)
    assert not any("lora_" in name for name, _ in model.named_parameters())
    np.testing.assert_allclose(predict_probs(model, context.study.val, context.engine), found.val_outputs, atol=1e-5)


def test_a_trial_from_another_source_is_refused(context, spec_of):
    other = dataclasses.replace(spec_of(1).source, sha256="another file")
    with pytest.raises(RunError, match="expected a trial that starts from"):
        run_trial(dataclasses.replace(spec_of(1), source=other), context)


def test_a_specification_keeps_its_name_on_a_trip_through_json(spec_of):
    spec = dataclasses.replace(spec_of(1), weight_decay=0, lr=1)
    again = from_json(TrialSpec, json.loads(json.dumps(to_json(spec))))
    assert again == spec
    assert again.key() == spec.key()


def test_the_stored_specification_is_the_one_asked_for(context, spec_of):
    trial = run_trial(spec_of(2, epochs=1), context)
    stored = json.loads((trial.folder / "result.json").read_text())["spec"]
    assert (stored["cut"], stored["strategy"], stored["train"]["epochs"]) == (2, "ttl", 1)


class Stop(BaseException):
    """Raised where training would begin."""


def start_of(spec, context, monkeypatch):
    """The weights with which the training of `spec` begins."""
    seen = {}

    def stop(model, *_):
        seen.update({name: value.clone() for name, value in model.state_dict().items()})
        raise Stop

    with monkeypatch.context() as patched:
        patched.setattr(room, "train_model", stop)
        with pytest.raises(Stop):
            run_trial(spec, context)
    return seen


def test_a_warm_start_has_the_parents_trunk_and_a_head_solved_on_it(context, spec_of, monkeypatch):
    parent = run_trial(spec_of(3), context)
    whole, _ = load_trial_model(parent, context)
    spec = dataclasses.replace(spec_of(2), parent=parent.spec.key())
    seen = start_of(spec, context, monkeypatch)
    for name, value in whole.state_dict().items():
        if name.startswith("trunk.") and name in seen:
            torch.testing.assert_close(seen[name], value)
    assert any(not torch.equal(seen[name], value) for name, value in start_of(spec_of(2), context, monkeypatch).items())
    # The head is the logistic regression on the parent's own features at that cut.
    cut = context.source.cuts[1]
    model, _ = apply_strategy("ttl", context.source, cut, spec.head, lr=1.0, seed=0)
    model.trunk.load_state_dict({k[6:]: v for k, v in whole.state_dict().items() if k[:6] == "trunk."}, strict=False)
    features = extract_features(FeatureReader(model), context.study.train, context.engine)
    weight, bias = fit_linear(context.study.labelled(features), spec.seed)
    torch.testing.assert_close(seen["head.linear.weight"], weight)
    torch.testing.assert_close(seen["head.linear.bias"], bias)


def test_a_warm_start_at_the_same_cut_goes_on_with_the_head_too(context, spec_of, monkeypatch):
    parent = run_trial(spec_of(2), context)
    model, _ = load_trial_model(parent, context)
    spec = dataclasses.replace(spec_of(2), parent=parent.spec.key())
    seen = start_of(spec, context, monkeypatch)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(seen[name], value)
    warm = run_trial(spec, context)
    assert warm.folder != parent.folder
    assert same(warm, run_trial(spec, context))
    assert load_trial_model(warm, context)[0].trunk.cut.index == 2


def test_a_parent_without_weights_is_told(context, spec_of):
    parent = run_trial(spec_of(3), context)
    forget_weights(parent)
    with pytest.raises(RunError, match="weights of the trial to start from"):
        run_trial(dataclasses.replace(spec_of(2), parent=parent.spec.key()), context)


def test_every_field_of_a_trial_and_of_its_training_is_in_its_name(spec_of):
    spec = spec_of(2)
    assert spec.key() == spec_of(2).key()
    said = to_json(spec)
    others = {
        **dict.fromkeys(("strategy", "solver", "parent"), "other"),
        **dict.fromkeys(("cut", "seed", "lr", "weight_decay"), 9),
        "source": dataclasses.replace(spec.source, sides=(9, 9)),
        "head": dataclasses.replace(spec.head, dropout=0.5),
        "train": dataclasses.replace(spec.train, patience=99),
        "settings": dataclasses.replace(spec.settings, width=0.9),
    }
    assert set(others) == set(said)
    assert len({dataclasses.replace(spec, **{name: other}).key() for name, other in others.items()}) == len(others)
    assert set(said) == {field.name for field in dataclasses.fields(spec)}
    assert set(said["train"]) == {field.name for field in dataclasses.fields(spec.train)}
    assert dataclasses.replace(spec, parent="other").key() != spec.key()
