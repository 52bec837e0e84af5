import dataclasses
import filecmp

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.interpolate import BSpline

from medgraft.data.cohort.labelled import read_cohort
from medgraft.errors import ConfigError, RunError
from medgraft.io.volume import read_volume
from medgraft.phantom.anatomy import attenuation, draw_anatomy, lung_field
from medgraft.phantom.fields import ellipsoid, grid, inside, moved, near_segments, smooth_noise, spot
from medgraft.phantom.film import SITES, draw_acquisition, expose
from medgraft.phantom.lesions import LESIONS, draw_lesion, lesion_profile
from medgraft.phantom.phantom import DEMO, DEMO_VOLUMES, PhantomSettings, phantom_case, write_phantom
from medgraft.types import Reading

SMALL = PhantomSettings(num_patients={"train": 12, "val": 6, "test": 9}, images_per_patient=(1, 3))


def lesion_case(kind: str, seed: int, ndim: int = 2):
    anatomy = draw_anatomy(np.random.default_rng((seed, 0)), ndim)
    return anatomy, draw_lesion(np.random.default_rng((seed, 1)), kind, anatomy)


class TestFields:
    def test_segments_agree_with_the_nearest_of_many_points(self):
        rng = np.random.default_rng(0)
        points = rng.uniform(-1, 1, (2, 50)).astype(np.float32)
        start, end, width = [*rng.uniform(-1, 1, (2, 1, 2)), [0.3]]
        dense = np.array(start) + np.linspace(0, 1, 20_001)[:, None] * (np.array(end) - np.array(start))
        distance = np.sqrt(((points.T[:, None, :].astype(float) - dense[None]) ** 2).sum(-1)).min(1)
        ours = near_segments(points, np.array(start), np.array(end), np.array(width))
        np.testing.assert_allclose(ours, np.exp(-0.5 * (distance / 0.3) ** 2), atol=1e-5)

    def test_smooth_noise_is_a_cubic_b_spline_of_its_knots(self):
        knots = np.random.default_rng(1).standard_normal((9, 9)).astype(np.float32)
        points = np.random.default_rng(2).uniform(-0.7, 0.7, (2, 40)).astype(np.float32)
        places = (points.astype(float) + 1.4) / 2.8 * 8
        basis = BSpline.basis_element(np.arange(-2.0, 3.0), extrapolate=False)
        weights = np.nan_to_num(basis(places[:, :, None] - np.arange(9)))
        expected = np.einsum("pi,pj,ij->p", weights[0], weights[1], knots)
        np.testing.assert_allclose(smooth_noise(knots, points), expected, atol=1e-5)

    @given(st.floats(-3, 3), st.floats(0.5, 2.0), st.floats(-0.5, 0.5))
    def test_moved_is_a_complex_rotation(self, angle, scale, shift):
        points = np.random.default_rng(0).uniform(-1, 1, (2, 5))
        result = moved(points, np.array([shift, -shift]), angle, scale)
        # With the column as real and the row as imaginary part.
        from_origin = (points[1] + shift) + 1j * (points[0] - shift)
        np.testing.assert_allclose(result[1] + 1j * result[0], from_origin / scale * np.exp(1j * angle), atol=1e-5)

    def test_ellipsoid_is_zero_on_its_surface_in_three_axes(self):
        radii, angle = np.array([0.3, 0.5, 0.8]), np.linspace(0, 6, 20)
        direction = np.stack([np.sin(angle), np.cos(angle) * 0.6, np.cos(angle) * 0.8])
        np.testing.assert_allclose(ellipsoid(direction * radii[:, None], np.zeros(3), radii), 0, atol=1e-6)
        assert ellipsoid(np.array([[1.0], [1.0]]), np.zeros(2), np.ones(2), 4.0) == pytest.approx(1 - 2**0.25)

    @given(st.floats(-2, 2), st.floats(0.01, 1.0))
    def test_inside_stays_between_zero_and_one(self, level, softness):
        value, mirrored = inside(np.array([level]), softness), inside(np.array([-level]), softness)
        assert 0.0 <= value[0] <= 1.0
        assert value[0] + mirrored[0] == pytest.approx(1.0)

    def test_spot_is_a_gaussian(self):
        points = grid((8, 8))
        expected = np.exp(-0.5 * ((points.astype(float) - 0.1) ** 2).sum(0) / 0.2**2)
        np.testing.assert_allclose(spot(points, np.array([0.1, 0.1]), 0.2), expected, atol=1e-6)


class TestAnatomy:
    @settings(max_examples=20, deadline=None)
    @given(st.integers(0, 10_000))
    def test_every_patient_has_two_darker_lungs(self, seed):
        anatomy = draw_anatomy(np.random.default_rng(seed), 2)
        points = grid((64, 64))
        lungs, seen = lung_field(anatomy, points), attenuation(anatomy, points)
        assert lungs.dtype == seen.dtype == np.float32
        assert np.isfinite(seen).all()
        for half in (np.s_[:, :32], np.s_[:, 32:]):
            assert (lungs[half] > 0.9).mean() > 0.10
        middle = np.abs(points[1]) < 0.05
        assert seen[lungs > 0.9].mean() < seen[middle].mean() - 0.15

    def test_anatomy_does_not_depend_on_the_grid_it_is_drawn_on(self):
        anatomy = draw_anatomy(np.random.default_rng(4), 2)
        whole = attenuation(anatomy, grid((48, 48)))
        part = attenuation(anatomy, grid((48, 48))[:, 10:20, 5:40].copy())
        np.testing.assert_allclose(part, whole[10:20, 5:40], atol=1e-6)


class TestLesions:
    @pytest.mark.parametrize("kind", sorted(LESIONS))
    def test_the_core_lies_in_a_lung_field(self, kind):
        for seed in range(40):
            anatomy, lesion = lesion_case(kind, seed)
            around = np.linspace(0, 2 * np.pi, 16)
            core = lesion.centre[:, None] + 0.5 * lesion.radius * np.stack([np.sin(around), np.cos(around)])
            assert lung_field(anatomy, core.astype(np.float32)).min() > 0.5, seed

    @pytest.mark.parametrize("kind", sorted(LESIONS))
    def test_profile_is_a_share_that_vanishes_far_away(self, kind):
        _, lesion = lesion_case(kind, 3)
        points = grid((96, 96))
        profile, extent = lesion_profile(lesion, points)
        away = np.sqrt(((points - lesion.centre[:, None, None]) ** 2).sum(0)) > 2.7 * lesion.radius
        for values in (profile, extent):
            assert values.min() >= 0.0
            assert 0.5 < values.max() <= 1.0
            assert values[away].max(initial=0.0) < 0.01

    def test_a_spiculated_margin_is_longer_than_a_smooth_one(self):
        def roundness(kind, seed):
            _, extent = lesion_profile(lesion_case(kind, seed)[1], grid((256, 256)))
            mask = extent >= 0.3
            edge = sum(int((mask != np.roll(mask, 1, axis)).sum()) for axis in (0, 1))
            return edge**2 / mask.sum()

        smooth = [roundness("nodule", seed) for seed in range(12)]
        spiculated = [roundness("mass", seed) for seed in range(12)]
        assert min(spiculated) > 1.5 * max(smooth)


class TestCase:
    def test_same_seed_gives_the_same_film(self):
        first, second = phantom_case(DEMO, 7, 1), phantom_case(DEMO, 7, 1)
        assert np.array_equal(first[0], second[0])
        assert np.array_equal(first[1], second[1])
        assert first[2] == second[2] == 1

    def test_films_of_one_patient_resemble_each_other_more_than_other_patients(self):
        def film(seed, index):
            image = phantom_case(dataclasses.replace(DEMO, classes=("normal", "mass")), 2 * seed, index)[0]
            return image.astype(float)

        def correlation(a, b):
            return np.corrcoef(a.ravel(), b.ravel())[0, 1]

        same = [correlation(film(s, 0), film(s, 1)) for s in range(20)]
        other = [correlation(film(s, 0), film(s + 1, 0)) for s in range(20)]
        assert np.mean(same) > np.mean(other)
        assert max(same) < 0.9999

    def test_mask_is_empty_exactly_for_normal(self):
        for seed in range(30):
            image, mask, class_index = phantom_case(DEMO, seed, 0)
            assert image.dtype == np.uint8
            assert mask.dtype == bool
            assert image.shape == mask.shape == (64, 64)
            assert mask.any() == (DEMO.classes[class_index] != "normal")

    @pytest.mark.parametrize("kind", sorted(LESIONS))
    def test_contrast_changes_the_film_only_around_the_lesion(self, kind):
        faint = PhantomSettings(classes=("normal", kind), contrast=0.05)
        strong = dataclasses.replace(faint, contrast=0.8)
        for seed in range(1, 21, 2):
            (low, mask, _), (high, same_mask, _) = phantom_case(faint, seed, 0), phantom_case(strong, seed, 0)
            difference = high.astype(float) - low
            assert np.array_equal(mask, same_mask)
            # Scatter spreads a little of the lesion over the whole film.
            assert difference[mask].mean() > 5 * abs(difference[~mask].mean())

    def test_film_is_neither_clipped_nor_flat(self):
        films = np.stack([phantom_case(DEMO, seed, 0)[0] for seed in range(60)])
        assert (films == 255).mean() < 0.02
        assert (films == 0).mean() < 0.05
        assert films.reshape(60, -1).std(axis=1).min() > 20

    def test_brightness_alone_does_not_tell_the_classes_apart(self):
        means = [phantom_case(DEMO, seed, 0)[0].mean() for seed in range(240)]
        groups = [np.array(means[k::3]) for k in range(3)]
        spread = np.std(means)
        assert max(abs(a.mean() - b.mean()) for a in groups for b in groups) < 0.5 * spread

    @pytest.mark.parametrize("shape", [(96, 64), (32, 40, 48)])
    def test_other_shapes_and_volumes_come_from_the_same_code(self, shape):
        image, mask, _ = phantom_case(dataclasses.replace(DEMO, shape=shape), 4, 0)
        assert image.shape == mask.shape == shape
        assert 0 < mask.mean() < 0.2

    def test_resolution_shows_the_same_patient(self):
        small, large = (phantom_case(dataclasses.replace(DEMO, shape=(n, n)), 4, 0) for n in (64, 128))
        halved = large[1].reshape(64, 2, 64, 2).mean(axis=(1, 3))
        assert np.abs(halved - small[1]).mean() < 0.01

    def test_grain_is_the_films_own(self):
        film = draw_acquisition(np.random.default_rng(0), SITES["north"], 2)
        flat, points = np.full((64, 64), 0.5, dtype=np.float32), grid((64, 64))
        quiet = dataclasses.replace(film, grain=0.0, wire_width=np.zeros(0))
        assert len(np.unique(expose(flat, points, quiet))) == 1
        noisy = dataclasses.replace(film, grain=0.05, gamma=1.0, exposure=0.0, latitude=1.0, wire_width=np.zeros(0))
        # 0.05 × (0.6 + 0.8 × 0.5) of the full range.
        assert expose(flat, points, noisy).std() == pytest.approx(0.05 * 255, rel=0.05)


class TestWriting:
    def test_same_seed_writes_the_same_bytes(self, tmp_path):
        write_phantom(tmp_path / "a", SMALL, seed=3)
        write_phantom(tmp_path / "b", SMALL, seed=3)
        names = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*") if path.is_file())
        assert len(names) > 2 * 27
        _, mismatch, errors = filecmp.cmpfiles(tmp_path / "a", tmp_path / "b", map(str, names), shallow=False)
        assert mismatch == errors == []

    def test_table_lists_every_file_and_no_patient_is_in_two_splits(self, tmp_path):
        path = write_phantom(tmp_path, SMALL, seed=0)
        table = pd.read_csv(path)
        assert list(table.columns) == ["path", "label", "patient", "split", "site", "mask"]
        assert table.groupby("patient")["split"].nunique().max() == 1
        assert table.groupby("patient")["label"].nunique().max() == 1
        assert table.groupby("split")["patient"].nunique().to_dict() == SMALL.num_patients
        assert table.groupby("patient").size().between(1, 3).all()
        assert set(table["path"]) == {f"images/{p.name}" for p in (tmp_path / "images").iterdir()}
        assert set(table["mask"]) == {f"masks/{p.name}" for p in (tmp_path / "masks").iterdir()}
        assert set(table["site"]) <= set(SITES)

    def test_labels_are_true_without_noise_and_balanced(self, tmp_path):
        table = pd.read_csv(write_phantom(tmp_path, SMALL, seed=1))
        for row in table.itertuples():
            mask = np.asarray(Image.open(tmp_path / row.mask))
            assert set(np.unique(mask)) <= {0, 255}
            assert mask.any() == (row.label != "normal")
        patients = table.drop_duplicates("patient")
        assert patients.groupby(["split", "label"]).size().unstack().std(axis=1).max() == 0

    def test_names_do_not_tell_the_class(self, tmp_path):
        labels = pd.read_csv(write_phantom(tmp_path, SMALL, seed=0)).drop_duplicates("patient")["label"].tolist()
        assert labels[:12] != [SMALL.classes[k % 3] for k in range(12)]

    def test_label_noise_changes_training_labels_only(self, tmp_path):
        noisy = dataclasses.replace(SMALL, num_patients={"train": 60, "val": 6, "test": 6}, label_noise=0.4)
        clean = pd.read_csv(write_phantom(tmp_path / "a", dataclasses.replace(noisy, label_noise=0.0), seed=0))
        mixed = pd.read_csv(write_phantom(tmp_path / "b", noisy, seed=0))
        assert clean["path"].equals(mixed["path"])
        changed = clean["label"] != mixed["label"]
        assert not changed[clean["split"] != "train"].any()
        patients = changed[clean["split"] == "train"].groupby(clean["patient"]).first()
        assert 0.2 < patients.mean() < 0.6

    def test_other_seed_shares_no_film(self, tmp_path):
        tiny = dataclasses.replace(SMALL, num_patients={"train": 3, "val": 3, "test": 3})
        pixels = []
        for seed in (0, 1):
            write_phantom(tmp_path / str(seed), tiny, seed=seed)
            pixels.append({p.read_bytes() for p in (tmp_path / str(seed) / "images").iterdir()})
        assert not pixels[0] & pixels[1]

    def test_failed_writing_leaves_no_table(self, tmp_path):
        tiny = dataclasses.replace(SMALL, num_patients={"train": 2, "val": 2, "test": 2})
        write_phantom(tmp_path, tiny, seed=0)
        (tmp_path / "masks" / "p00003_0.png").unlink()
        (tmp_path / "masks" / "p00003_0.png").mkdir()
        with pytest.raises(RunError, match="Choose a folder"):
            write_phantom(tmp_path, tiny, seed=0)
        assert not (tmp_path / "cases.csv").exists()

    def test_a_file_as_folder_is_refused(self, tmp_path):
        (tmp_path / "taken").write_text("x")
        with pytest.raises(RunError, match="taken"):
            write_phantom(tmp_path / "taken", SMALL, seed=0)


class TestSettings:
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"shape": (64,)}, "two or three axes"),
            ({"shape": (16, 64)}, "32 to 1024"),
            ({"num_patients": {"train": 3}}, "train, val and test"),
            ({"num_patients": {"train": 3, "val": 0, "test": 1}}, "1 or more"),
            ({"num_patients": {"train": 10**6, "val": 1, "test": 1}}, "1000000 at most"),
            ({"images_per_patient": (2, 1)}, "fewest <= most"),
            ({"classes": ("normal",)}, "two or more"),
            ({"classes": ("normal", "star")}, "got .*star"),
            ({"classes": ("mass", "mass")}, "different"),
            ({"contrast": 0.0}, "contrast must be above 0"),
            ({"contrast": float("nan")}, "contrast must be above 0"),
            ({"label_noise": 1.0}, "below 1"),
        ],
    )
    def test_nonsense_is_refused(self, change, message):
        with pytest.raises(ConfigError, match=message):
            dataclasses.replace(DEMO, **change)

    def test_negative_seeds_are_refused(self, tmp_path):
        with pytest.raises(ConfigError, match="patient_seed must be 0 or more"):
            phantom_case(DEMO, -1, 0)
        with pytest.raises(ConfigError, match="image_index must be 0 or more"):
            phantom_case(DEMO, 0, -1)
        with pytest.raises(ConfigError, match="seed must be 0 or more"):
            write_phantom(tmp_path, DEMO, -1)

    def test_volumes_are_written_as_nifti_with_the_head_above(self, tmp_path):
        settings = dataclasses.replace(
            DEMO_VOLUMES, num_patients={"train": 3, "val": 3, "test": 3}, images_per_patient=(1, 1)
        )
        table = write_phantom(tmp_path / "a", settings, 3)
        assert table.read_bytes() == write_phantom(tmp_path / "b", settings, 3).read_bytes()
        cohort = read_cohort(table)
        assert (cohort.dims, len(cohort), cohort.classes) == (3, 9, ("mass", "nodule", "normal"))
        for name in cohort.table["path"]:
            assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
        lesion, _ = read_volume([tmp_path / "a" / cohort.table["mask"].iat[0]], Reading(scaling="range"))
        row = cohort.table["path"].iat[0]
        found, facts = read_volume([tmp_path / "a" / row], Reading(scaling="range"))
        assert found.shape == lesion.shape == (32, 32, 32)
        assert facts.spacing_mm == (10.0, 10.0, 10.0)
        # Lungs let more through than the belly, and the head is at the end of the first axis.
        assert found[20:28].mean() < found[:6].mean()

    def test_demo_has_the_promised_size(self):
        assert DEMO.num_patients["test"] >= 420
        assert DEMO.num_patients["train"] == 240
        assert DEMO.classes == ("normal", "nodule", "mass")
