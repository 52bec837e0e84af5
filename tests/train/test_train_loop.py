"""Training is reproducible, resumes to the bit, keeps the best epoch and never varies validation."""

import dataclasses

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import medgraft.train.checkpoint as checkpoint
import medgraft.train.loop as loop
import medgraft.train.teaching as teaching
from medgraft.errors import ConfigError, RunError
from medgraft.metrics.classification import auprc, auroc
from medgraft.train import Engine, TrainSettings, predict_probs
from medgraft.train.augment import AUGMENTATIONS, AugmentSettings
from medgraft.train.schedule import cosine_factor
from medgraft.transfer.plan import ParameterGroup
from medgraft.types import Predictions

HARD = {"epochs": 4, "augment": AUGMENTATIONS["strong"], "seed": 3}
TIMES = ("seconds", "val_seconds")


class Killed(BaseException):
    """As sudden as a signal."""


def same(one, other):
    """Whether two trainings gave the same weights, outputs and history (times apart)."""
    (model, found), (other_model, other_found) = one, other
    weights, other_weights = model.state_dict(), other_model.state_dict()
    rows, other_rows = (
        [{k: v for k, v in dataclasses.asdict(row).items() if k not in TIMES} for row in result.history]
        for result in (found, other_found)
    )
    return (
        all(torch.equal(weights[key], other_weights[key]) for key in weights)
        and np.array_equal(found.val_outputs, other_found.val_outputs)
        and rows == other_rows
        and (found.best_epoch, found.images_seen) == (other_found.best_epoch, other_found.images_seen)
    )


def predictions(data, probs):
    return Predictions(
        probs=probs,
        targets=data.targets,
        groups=np.arange(len(data)),
        classes=tuple("abc"[: data.num_classes]),
        task=data.task,
        positive=data.positive,
    )


def test_equal_seeds_agree_to_the_bit_and_others_differ(make_run):
    first = make_run("one")(**HARD)
    torch.manual_seed(99)
    np.random.default_rng(99)
    assert same(first, make_run("two")(**HARD))
    assert not same(first, make_run("three")(**{**HARD, "seed": 4}))


@pytest.mark.parametrize("schedule", ["cosine", "plateau"])
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("killed_after", [1, 2, 3, 4])
@pytest.mark.usefixtures("writes_always")
def test_a_training_killed_after_any_epoch_resumes_to_the_bit(make_run, schedule, optimizer, killed_after):
    settings = {**HARD, "schedule": schedule, "optimizer": optimizer, "patience": 0}
    whole = make_run("whole")(**settings)

    def kill(epoch, _epochs):
        if epoch == killed_after:
            raise Killed

    with pytest.raises(Killed):
        make_run("killed", on_epoch=kill)(**settings)
    told = []
    resumed = make_run("killed", on_epoch=lambda *place: told.append(place))(**settings)
    assert told == [(epoch, 4) for epoch in range(killed_after + 1, 5)]
    assert same(whole, resumed)


@pytest.mark.parametrize("killed_after", [1, 2, 3, 4])
@pytest.mark.usefixtures("writes_once")
def test_epochs_since_the_last_checkpoint_are_trained_again_to_the_bit(make_run, killed_after):
    whole = make_run("whole")(**HARD)

    def kill(epoch, _epochs):
        if epoch == killed_after:
            raise Killed

    with pytest.raises(Killed):
        make_run("killed", on_epoch=kill)(**HARD)
    told = []
    resumed = make_run("killed", on_epoch=lambda *place: told.append(place))(**HARD)
    assert told == [(2, 4), (3, 4), (4, 4)]
    assert same(whole, resumed)


@pytest.mark.parametrize("killed_in_step", [1, 2, 4, 8, 11])
@pytest.mark.usefixtures("writes_always")
def test_a_training_killed_within_an_epoch_resumes_to_the_bit(make_run, monkeypatch, killed_in_step):
    whole = make_run("whole")(**HARD)
    steps = []

    def dying(model, images, engine):
        if model.training:
            steps.append(len(images))
            if len(steps) == killed_in_step:
                raise Killed
        return forward(model, images, engine)

    forward = loop.forward
    monkeypatch.setattr(loop, "forward", dying)
    with pytest.raises(Killed):
        make_run("killed")(**HARD)
    assert not torch.are_deterministic_algorithms_enabled()
    monkeypatch.setattr(loop, "forward", forward)
    assert same(whole, make_run("killed")(**HARD))


@pytest.mark.parametrize("writer", ["save_best", "save_checkpoint"])
@pytest.mark.parametrize("is_written", [False, True])
@pytest.mark.usefixtures("writes_always")
def test_a_training_killed_while_it_writes_resumes_to_the_bit(make_run, monkeypatch, writer, is_written):
    # A score that rises more than once, so that best weights are written more than once.
    monkeypatch.setattr(
        teaching, "scores_of", lambda found: {"score": -float(np.abs(found.probs[:, 1] - found.targets).mean())}
    )
    whole = make_run("whole")(**HARD)
    calls = []
    write = getattr(checkpoint, writer)

    def dying(*args):
        calls.append(1)
        if len(calls) == 2 and not is_written:
            raise Killed
        write(*args)
        if len(calls) == 2:
            raise Killed

    monkeypatch.setattr(checkpoint, writer, dying)
    with pytest.raises(Killed):
        make_run("killed")(**HARD)
    monkeypatch.setattr(checkpoint, writer, write)
    assert len(calls) == 2
    assert same(whole, make_run("killed")(**HARD))


@pytest.mark.usefixtures("writes_always")
def test_a_finished_training_is_only_read_back(make_run, monkeypatch):
    first = make_run()(**HARD)
    monkeypatch.setattr(loop, "forward", None)
    assert same(first, make_run()(**HARD))


def test_the_best_epoch_is_the_argmax_of_validation_auprc(make_run, make_images):
    run = make_run(lr=0.3)
    model, found = run(epochs=8, schedule="constant")
    scores = [row.scores["auprc"] for row in found.history]
    assert len(set(scores)) > 2
    assert found.best_epoch == int(np.argmax(scores)) + 1
    best = found.history[found.best_epoch - 1]
    validation = predictions(run.data[1], found.val_outputs)
    assert best.scores == {"auprc": auprc(validation), "auroc": auroc(validation)}
    np.testing.assert_array_equal(predict_probs(model, run.data[1], run.engine), found.val_outputs)


def test_equal_scores_keep_the_first_epoch(make_run, monkeypatch):
    monkeypatch.setattr(teaching, "scores_of", lambda _predictions: {"score": 0.5})
    assert make_run()(epochs=3)[1].best_epoch == 1


def test_validation_is_never_varied(make_run, monkeypatch):
    run = make_run()
    seen = []

    def spy(images, settings, generator):
        seen.append(len(images))
        return augment(images, settings, generator)

    augment = teaching.augment_batch
    monkeypatch.setattr(teaching, "augment_batch", spy)
    model, found = run(epochs=3, augment=AUGMENTATIONS["strong"])
    assert sum(seen) == 3 * len(run.data[0])
    monkeypatch.setattr(teaching, "augment_batch", augment)
    images = run.data[1].images[run.data[1].rows].astype(np.float32) / 255
    with torch.no_grad():
        wanted = model.eval()(torch.from_numpy(images)).double().sigmoid()[:, 0].numpy()
    np.testing.assert_allclose(found.val_outputs[:, 1], wanted, rtol=1e-6)


def test_training_sees_every_image_once_per_epoch(make_run, monkeypatch):
    run = make_run()
    seen = []

    def spy(data, positions, *args, **options):
        seen.append(positions)
        return iterate(data, positions, *args, **options)

    iterate = teaching.iterate
    monkeypatch.setattr(teaching, "iterate", spy)
    _, found = run(epochs=2)
    assert [sorted(order) for order in seen] == [list(range(40))] * 2
    assert not np.array_equal(*seen)
    assert found.images_seen == 80


def test_the_rate_of_each_group_follows_the_schedule(make_run, make_groups, monkeypatch):
    seen = []
    monkeypatch.setitem(loop.OPTIMIZERS, "sgd", lambda groups: Recorder(groups, seen))
    run = make_run(lr=0.1)
    model = torch.nn.Conv2d(1, 1, 8)
    groups = [
        ParameterGroup(params=(model.weight,), names=("weight",), lr=0.1, weight_decay=0.0),
        ParameterGroup(params=(model.bias,), names=("bias",), lr=0.01, weight_decay=0.0),
    ]
    flat = torch.nn.Sequential(model, torch.nn.Flatten())
    loop.train_model(
        flat, groups, run.data, TrainSettings(epochs=4, batch_size=8, optimizer="sgd"), run.engine, run.folder
    )
    rates = np.array(seen)
    assert rates.shape == (20, 2)
    steps = np.arange(20)
    cosine = 0.01 + 0.99 * 0.5 * (1 + np.cos(np.pi * (steps - 2) / 18))
    np.testing.assert_allclose(rates[:, 0], 0.1 * np.where(steps < 2, (steps + 1) / 2, cosine), rtol=1e-12)
    np.testing.assert_allclose(rates[:, 1], rates[:, 0] / 10, rtol=1e-12)


class Recorder(torch.optim.SGD):
    def __init__(self, groups, seen):
        super().__init__(groups)
        self.seen = seen

    def step(self, closure=None):
        self.seen.append([group["lr"] for group in self.param_groups])
        return super().step(closure)


@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd"])
def test_every_optimizer_learns(make_run, optimizer):
    _, found = make_run(lr=0.05 if optimizer == "sgd" else 0.02)(epochs=12, optimizer=optimizer)
    assert found.history[-1].train_loss < found.history[0].train_loss
    assert max(row.scores["auroc"] for row in found.history) > 0.9


@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
@pytest.mark.parametrize("imbalance", ["none", "weights", "sampler", "focal", "logit-adjust"])
def test_every_task_trains_with_every_imbalance(make_run, make_images, task, imbalance):
    run = make_run(data=(make_images(task), make_images(task, num=30, seed=1)))
    model, found = run(epochs=2, imbalance=imbalance)
    assert found.val_outputs.shape == (30, 3)
    assert np.isfinite(found.val_outputs).all()
    assert not model.training


def test_plateau_stops_before_the_last_epoch(make_run, monkeypatch):
    monkeypatch.setattr(teaching, "scores_of", lambda _predictions: {"score": 0.5})
    _, found = make_run(lr=4e-7)(epochs=50, schedule="plateau", patience=0)
    # The first epoch is progress; halved after each of the next three, 4e-7 falls below 1e-7.
    assert [row.epoch for row in found.history] == [1, 2, 3, 4]
    assert found.best_epoch == 1


@pytest.mark.parametrize("clip", [0.0, 1e-3])
def test_the_gradient_norm_is_clipped_when_asked(make_run, monkeypatch, clip):
    norms = []

    class Watching(torch.optim.SGD):
        def step(self, closure=None):
            grads = [p.grad for group in self.param_groups for p in group["params"]]
            norms.append(float(torch.cat([g.flatten() for g in grads]).norm()))
            return super().step(closure)

    monkeypatch.setitem(loop.OPTIMIZERS, "sgd", Watching)
    make_run()(epochs=1, optimizer="sgd", clip_norm=clip)
    assert (max(norms) <= 1.01e-3) == (clip > 0)


def test_a_diverging_loss_is_told(make_run):
    with pytest.raises(RunError, match=r"training loss became .* in epoch \d+\. Lower the learning rate"):
        make_run(lr=1e30)(epochs=5, optimizer="sgd", schedule="constant", clip_norm=0.0)


def test_validation_outputs_of_nan_are_told(make_run, monkeypatch):
    monkeypatch.setattr(teaching, "predict_probs", lambda model, data, engine: np.full((len(data), 2), np.nan))
    with pytest.raises(RunError, match="validation outputs became NaN"):
        make_run()()


def test_bf16_trains_and_keeps_weights_in_float32(make_run):
    model, found = make_run(engine=Engine(device="cpu", precision="bf16"))(epochs=6)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert found.val_outputs.dtype == np.float64
    assert max(row.scores["auroc"] for row in found.history) > 0.8


def test_channels_last_gives_close_results(make_run, tmp_path):
    _, found = make_run("one", engine=Engine(device="cpu"))(epochs=2, optimizer="sgd")
    other, close = make_run("two", engine=Engine(device="cpu", is_channels_last=True))(epochs=2, optimizer="sgd")
    assert other.blocks[3].weight.is_contiguous(memory_format=torch.channels_last)
    np.testing.assert_allclose(found.val_outputs, close.val_outputs, atol=1e-3)
    stored = load_file(tmp_path / "two" / "best.safetensors")
    assert torch.equal(stored["blocks.3.weight"], other.blocks[3].weight)


def test_channels_last_resumes_to_the_bit(make_run):
    engine = Engine(device="cpu", is_channels_last=True, is_deterministic=True)
    whole = make_run("whole", engine=engine)(**HARD)

    def kill(epoch, _epochs):
        if epoch == 2:
            raise Killed

    with pytest.raises(Killed):
        make_run("killed", engine=engine, on_epoch=kill)(**HARD)
    assert same(whole, make_run("killed", engine=engine)(**HARD))


def test_a_network_with_tied_weights_can_be_stored(make_run, make_groups):
    class Tied(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.one = torch.nn.Conv2d(1, 1, 3, padding=1)
            self.two = torch.nn.Conv2d(1, 1, 3, padding=1)
            self.two.weight = self.one.weight

        def forward(self, images):
            return self.two(self.one(images)).mean((2, 3))

    run = make_run()
    model = Tied()
    loop.train_model(
        model, make_groups(model), run.data, TrainSettings(epochs=1, batch_size=16), run.engine, run.folder
    )
    assert model.two.weight is model.one.weight


def test_probabilities_come_in_the_order_of_the_data(make_net, make_images):
    data = make_images(num=150)
    model = make_net().eval()
    told = []
    probs = predict_probs(model, data, Engine(device="cpu"), told.append)
    assert told[-1] == 150
    assert told == sorted(set(told))
    for position in (0, 77, 149):
        image = torch.from_numpy(data.images[data.rows[position]].astype(np.float32) / 255)
        with torch.no_grad():
            assert probs[position, 1] == pytest.approx(float(model(image[None]).sigmoid()), rel=1e-5)
    empty = dataclasses.replace(data, rows=data.rows[:0], targets=data.targets[:0])
    assert predict_probs(model, empty, Engine(device="cpu")).shape == (0, 2)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", 0),
        ("batch_size", 0),
        ("patience", -1),
        ("clip_norm", float("nan")),
        ("optimizer", "lion"),
        ("schedule", "step"),
        ("imbalance", "both"),
    ],
)
def test_impossible_settings_are_refused(name, value):
    with pytest.raises(ConfigError, match=f"{name} must be .*got {value!r}"):
        TrainSettings(**{"epochs": 1, "batch_size": 1, name: value})


def test_zero_augmentation_is_the_default():
    assert TrainSettings(epochs=1, batch_size=1).augment == AugmentSettings()


@pytest.mark.parametrize(("num", "batch_size"), [(17, 16), (33, 16), (32, 16), (5, 16), (7, 1), (1, 1)])
def test_the_cosine_schedule_ends_whatever_the_last_batch_holds(make_run, make_images, monkeypatch, num, batch_size):
    """A last batch of one image is left out; the schedule once counted it and stopped at .59 of the rate."""
    rates = []
    step = torch.optim.AdamW.step

    def spied(self, *args, **named):
        rates.append(self.param_groups[0]["lr"])
        return step(self, *args, **named)

    monkeypatch.setattr(torch.optim.AdamW, "step", spied)
    data = (make_images(num=num), make_images(num=24, seed=1))
    _, found = make_run(data=data, lr=1.0)(epochs=20, batch_size=batch_size, schedule="cosine")
    total = len(rates)
    assert rates[-1] == pytest.approx(cosine_factor(total - 1, total))
    assert rates[-1] < 0.04
    # And single images are only left out where batch normalisation would see one instead of many.
    left_out = 1 if num % batch_size == 1 < batch_size else 0
    assert found.images_seen == 20 * (num - left_out)
