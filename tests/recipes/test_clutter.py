import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.path import Path as Outline
from safetensors.torch import load_file

RECIPE = Path(__file__).resolve().parents[2] / "recipes" / "pretrain_shapes"
LESION_WORDS = ("disc", "disk", "blob", "circle", "spicul", "lobul", "star", "nodule", "mass", "net")


@pytest.fixture(scope="module")
def recipe():
    """The recipe's two scripts, imported as they import each other when run."""
    sys.path.insert(0, str(RECIPE))
    try:
        yield importlib.import_module("clutter"), importlib.import_module("pretrain")
    finally:
        sys.path.remove(str(RECIPE))
        for name in ("clutter", "pretrain"):
            sys.modules.pop(name, None)


def test_no_shape_is_a_lesion_shape_of_the_phantom(recipe):
    clutter, _ = recipe
    assert 10 <= len(clutter.SHAPES) <= 14
    assert len(clutter.FILLS) == 4
    assert not [name for name in clutter.SHAPES if any(word in name for word in LESION_WORDS)]


def test_every_figure_leaves_most_of_a_disc_empty(recipe):
    clutter, _ = recipe
    points = np.stack(np.meshgrid(*[np.linspace(-1.2, 1.2, 121)] * 2, indexing="ij")).astype(np.float32)
    for name, shape in clutter.SHAPES.items():
        figure = shape(points) <= 0
        rows, columns = points[:, figure]
        reach = np.sqrt((rows - rows.mean()) ** 2 + (columns - columns.mean()) ** 2).max()
        share = figure.sum() * (2.4 / 120) ** 2 / (np.pi * reach**2)
        assert 0.1 < share < 0.75, name


def test_polygon_agrees_with_matplotlib_and_with_the_box_formula(recipe):
    clutter, _ = recipe
    points = np.random.default_rng(0).uniform(-1.2, 1.2, (2, 2000)).astype(np.float32)
    triangle = Outline([(-0.95, 0.0), (0.6, -0.9), (0.6, 0.9)]).contains_points(points.T)
    assert np.array_equal(clutter.SHAPES["triangle"](points) < 0, triangle)
    beyond = np.abs(points.astype(float)) - 0.7
    box = np.sqrt((np.maximum(beyond, 0) ** 2).sum(0)) + np.minimum(beyond.max(0), 0)
    np.testing.assert_allclose(clutter.SHAPES["square"](points), box, atol=1e-5)


def test_strokes_measure_the_distance_to_their_line(recipe):
    clutter, _ = recipe
    points = np.array([[0.0, 0.5], [0.0, 0.5]], dtype=np.float32)
    # The cross has arms along both axes, 0.2 thick on either side.
    np.testing.assert_allclose(clutter.SHAPES["cross"](points), [-0.2, 0.3], atol=1e-6)


def test_image_depends_on_its_seed_and_number_alone(recipe):
    clutter, _ = recipe
    images, labels = clutter.clutter_set(60, seed=5, size=32)
    again, same_labels = clutter.clutter_set(60, seed=5, size=32)
    assert np.array_equal(images, again)
    assert np.array_equal(labels, same_labels)
    other, _ = clutter.clutter_set(60, seed=6, size=32)
    assert not {image.tobytes() for image in images} & {image.tobytes() for image in other}


def test_classes_are_balanced_and_images_fill_the_range(recipe):
    clutter, _ = recipe
    images, labels = clutter.clutter_set(2 * len(clutter.CLASSES), seed=0)
    assert np.bincount(labels).tolist() == [2] * len(clutter.CLASSES)
    assert images.dtype == np.uint8
    assert images.reshape(len(images), -1).std(axis=1).min() > 8
    assert ((images == 0) | (images == 255)).mean() < 0.02


def test_figure_is_drawn_where_only_the_class_differs(recipe):
    clutter, _ = recipe
    flat, other = (
        clutter.clutter_image(np.random.default_rng(3), clutter.CLASSES.index(name), 64).astype(float)
        for name in ("square-flat", "bar-flat")
    )
    changed = np.abs(flat - other) > 20
    assert 0.005 < changed.mean() < 0.4


def test_nonsense_is_refused(recipe):
    clutter, _ = recipe
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="class_index must be 0 to 51, got 52"):
        clutter.clutter_image(rng, 52, 64)
    with pytest.raises(ValueError, match="at least 16 px"):
        clutter.clutter_image(rng, 0, 8)
    with pytest.raises(ValueError, match="num_images must be at least 1"):
        clutter.clutter_set(0, seed=0)


def test_normalise_is_the_z_score_of_each_image(recipe):
    _, pretrain = recipe
    images = np.random.default_rng(0).integers(0, 256, (3, 16, 16), dtype=np.uint8)
    expected = np.stack([(image - image.mean()) / image.std() for image in images.astype(float)])[:, None]
    np.testing.assert_allclose(pretrain.normalise(torch.from_numpy(images)), expected, atol=1e-5)
    flat = pretrain.normalise(torch.full((1, 16, 16), 7, dtype=torch.uint8))
    assert torch.equal(flat, torch.zeros(1, 1, 16, 16))


def test_augment_flips_and_shifts_but_invents_nothing(recipe):
    _, pretrain = recipe
    image = torch.arange(400).reshape(1, 20, 20).repeat(64, 1, 1)
    changed = pretrain.augment(image, torch.Generator().manual_seed(0))
    assert changed.shape == image.shape
    steps_down, steps_right = changed.diff(dim=1), changed.diff(dim=2)
    assert set(steps_down.unique().tolist()) == {-20, 0, 20}
    assert set(steps_right.unique().tolist()) == {-1, 0, 1}
    assert len({tuple(one.flatten().tolist()) for one in changed}) > 50


def test_batches_cover_an_epoch_once(recipe):
    _, pretrain = recipe
    batches = pretrain.shuffled_batches(12, 4, torch.Generator().manual_seed(0))
    epoch = torch.cat([next(batches) for _ in range(3)])
    assert sorted(epoch.tolist()) == list(range(12))


def test_short_run_writes_the_same_weights_twice_and_they_fit_the_packaged_trunk(recipe, tmp_path, monkeypatch):
    _, pretrain = recipe
    was_deterministic, threads = torch.are_deterministic_algorithms_enabled(), torch.get_num_threads()
    digests = []
    try:
        for name in ("a", "b"):
            call = ["pretrain.py", "--steps", "3", "--images", "64", "--val-images", "52", "--batch", "32"]
            monkeypatch.setattr(sys, "argv", [*call, "--threads", "1", "--out", str(tmp_path / name)])
            pretrain.main()
            manifest = json.loads((tmp_path / name / "shapes_resnet18.json").read_text())
            digests.append(manifest["sha256"])
    finally:
        torch.use_deterministic_algorithms(was_deterministic)
        torch.set_num_threads(threads)
    assert digests[0] == digests[1]
    state = load_file(tmp_path / "a" / "shapes_resnet18.safetensors")
    pretrain.build_packaged().load_state_dict(state)
    assert manifest["steps"] == 3
    assert list(manifest["source_val_accuracy_by_step"]) == ["3"]


def test_wrong_options_stop_before_any_work(recipe, tmp_path, monkeypatch, capsys):
    _, pretrain = recipe
    monkeypatch.setattr(sys, "argv", ["pretrain.py", "--images", "8", "--out", str(tmp_path / "x")])
    with pytest.raises(SystemExit) as stop:
        pretrain.main()
    assert stop.value.code == 2
    assert "--images must be at least --batch" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()
