"""Settings: presets, precedence, --set, refusals, and the way through YAML and back."""

import copy

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from medgraft.config import PRESETS, RunConfig, make_config, parse_minutes, read_config, to_yaml
from medgraft.errors import ConfigError, RunError
from medgraft.prepare.cohort import reading_of


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_is_a_valid_configuration(preset):
    config = make_config("images", preset=preset)
    assert config.preset == preset
    for section, values in PRESETS[preset].items():
        if isinstance(values, dict):
            assert values.items() <= getattr(config, section).model_dump().items()
        else:
            assert getattr(config, section) == values


def test_paper_preset_is_the_published_protocol():
    train = make_config("images", preset="paper").train
    assert (train.optimizer, train.lr, train.batch_size, train.schedule) == ("adam", 1e-4, 64, "plateau")
    assert make_config("images", preset="paper").seeds == 3


def test_sets_win_over_options_and_options_over_the_preset():
    options = {"train": {"epochs": 5, "lr": 0.5}, "seed": 3}
    config = make_config("images", preset="fast", options=options, sets=["train.lr=0.25"])
    assert (config.train.epochs, config.train.lr, config.seed) == (5, 0.25, 3)
    assert make_config("images", preset="fast").train.epochs == PRESETS["fast"]["train"]["epochs"]


def test_the_last_of_two_sets_wins():
    assert make_config("images", sets=["seed=1", "seed=2"]).seed == 2


def test_options_of_none_count_as_not_given():
    options = {"train": {"epochs": None}, "budget_minutes": None, "data": {"positive": None}}
    assert make_config("images", preset="fast", options=options) == make_config("images", preset="fast")


def test_making_a_configuration_leaves_presets_and_options_alone():
    before = copy.deepcopy(PRESETS)
    options = {"train": {"epochs": 2}, "backbone": {"args": {"a": 1}}}
    given_options = copy.deepcopy(options)
    make_config("images", preset="paper", options=options, sets=["train.lr=0.1", "backbone.args.b=2"])
    assert before == PRESETS
    assert options == given_options


@pytest.mark.parametrize(
    ("text", "section", "key", "value"),
    [
        ("train.lr=3e-4", "train", "lr", 3e-4),
        ("train.epochs=7", "train", "epochs", 7),
        ("transfer.cut=5", "transfer", "cut", "5"),
        ("transfer.cut=layer3.2", "transfer", "cut", "layer3.2"),
        ("data.positive=1", "data", "positive", "1"),
        ("backbone.mean=[0.1, 0.2, 0.3]", "backbone", "mean", (0.1, 0.2, 0.3)),
        ("data.patient_regex=p(\\d+)=", "data", "patient_regex", "p(\\d+)="),
        ("evaluate.thumbnails=false", "evaluate", "thumbnails", False),
        ("evaluate.operating_point=sensitivity=0.95", "evaluate", "operating_point", "sensitivity=0.95"),
    ],
)
def test_set_reads_yaml_values(text, section, key, value):
    assert getattr(getattr(make_config("images", sets=[text]), section), key) == value


def test_arguments_of_the_network_are_merged_and_may_be_none():
    options = {"backbone": {"args": {"pad_type": "same", "drop": 0.1}}}
    sets = ["backbone.args.bn_eps=1e-3", "backbone.args.drop=null"]
    args = make_config("images", options=options, sets=sets).backbone.args
    assert args == {"pad_type": "same", "drop": None, "bn_eps": 1e-3}


@pytest.mark.parametrize("text", ["train.lr", "=3", " =3", "train.lr=[1"])
def test_a_set_of_another_form_is_refused(text):
    with pytest.raises(ConfigError, match="expected"):
        make_config("images", sets=[text])


@pytest.mark.parametrize(
    ("text", "nearest"),
    [("train.lrr=1", "train.lr"), ("trian.lr=1", "train"), ("lr=0.1", "train.lr"), ("data.postive=a", "data.positive")],
)
def test_an_unknown_key_names_the_nearest(text, nearest):
    with pytest.raises(ConfigError, match=rf"unknown setting .*Nearest: .*{nearest}"):
        make_config("images", sets=[text])


@pytest.mark.parametrize(
    "text",
    [
        "train.epochs=0",
        "train.lr=-0.1",
        "train.lr=0",
        "train.lr=.nan",
        "train.lr=.inf",
        "train.optimizer=lion",
        "train=3",
        "transfer.dropout=1",
        "evaluate.margin=0.5",
        "data.channels=2",
        "backbone.size=7",
        "seeds=0",
        "seed=-1",
        "budget_minutes=0",
    ],
)
def test_an_impossible_value_is_refused_with_its_place_and_value(text):
    place, _, value = text.partition("=")
    with pytest.raises(ConfigError, match=rf"{place}: .*got .*{value.strip('.')}"):
        make_config("images", sets=[text])


def test_all_mistakes_are_told_at_once():
    with pytest.raises(ConfigError, match=r"train\.epochs.*train\.lr"):
        make_config("images", sets=["train.epochs=0", "train.lr=-1"])


def test_an_unknown_preset_lists_the_known():
    with pytest.raises(ConfigError, match="fast, balanced, thorough, paper, got 'quick'"):
        make_config("images", preset="quick")


def test_a_preset_cannot_be_renamed_by_a_setting():
    with pytest.raises(ConfigError, match="--preset"):
        make_config("images", preset="fast", sets=["preset=paper"])


@given(
    preset=st.sampled_from(list(PRESETS)),
    lr=st.floats(1e-9, 10, exclude_min=True),
    epochs=st.integers(1, 10_000),
    positive=st.none() | st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=12),
    regex=st.sampled_from([None, r"p(\d+)", "no", "1e-3", "null", "'", "a: b #c"]),
    args=st.dictionaries(st.sampled_from("abc"), st.none() | st.integers() | st.booleans() | st.text("xyz")),
)
@settings(max_examples=40, deadline=None, derandomize=True)
def test_yaml_gives_back_the_same_configuration(preset, lr, epochs, positive, regex, args):
    options = {
        "train": {"lr": lr, "epochs": epochs},
        "data": {"positive": positive, "patient_regex": regex},
        "backbone": {"args": args, "mean": [0.5]},
    }
    config = make_config("imagés", preset=preset, options=options)
    assert RunConfig.model_validate(yaml.safe_load(to_yaml(config))) == config


def test_a_configuration_is_frozen():
    config = make_config("images")
    with pytest.raises(ValidationError, match="frozen"):
        config.seed = 1
    with pytest.raises(ValidationError, match="frozen"):
        config.train.lr = 1.0


@pytest.mark.parametrize(("text", "minutes"), [("30m", 30), (" 1.5h ", 90), ("90s", 1.5), ("1e1m", 10)])
def test_minutes_of_a_duration(text, minutes):
    assert parse_minutes(text) == minutes


@pytest.mark.parametrize("text", ["", "30", "m", "-3m", "0h", "nanm", "infh", "3 days", "30mm"])
def test_a_duration_of_another_form_is_refused(text):
    with pytest.raises(ConfigError, match="such as 30m, 2h or 90s"):
        parse_minutes(text)


def test_settings_of_volumes_are_checked():
    assert make_config("x", sets=["data.spacing_mm=2"]).data.spacing_mm == (2.0, 2.0, 2.0)
    assert make_config("x", sets=["data.spacing_mm=3,1,1"]).data.spacing_mm == (3.0, 1.0, 1.0)
    assert make_config("x", options={"backbone": {"size": (16, 32, 32)}}).backbone.size == (16, 32, 32)
    assert make_config("x", sets=["data.grades=a, b,c"]).data.grades == ("a", "b", "c")
    for bad in ("data.spacing_mm=1,2", "data.spacing_mm=0", "data.spacing_mm={a: 1}", "backbone.size=[16, 16]"):
        with pytest.raises(ConfigError, match="expected one"):
            make_config("x", sets=[bad])
    with pytest.raises(ConfigError):
        reading_of(make_config("x", sets=["data.windows=40"]).data)


def test_the_size_of_volumes_is_written_and_read_again_without_a_warning(recwarn):
    config = make_config("x", options={"backbone": {"size": (16, 32, 32)}})
    again = yaml.safe_load(to_yaml(config))
    assert again["backbone"]["size"] == [16, 32, 32]
    assert make_config("x", options={"backbone": again["backbone"]}).backbone.size == (16, 32, 32)
    assert not recwarn


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "data: {source: x}\ntrain: {epocs: 3}\n",
            r"settings of a run of this version in .*unknown setting train\.epocs",
        ),
        ("data: [", "could not read"),
        (None, "could not read"),
    ],
)
def test_a_configuration_of_another_version_is_one_line(tmp_path, text, message):
    if text is not None:
        (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(RunError, match=message):
        read_config(tmp_path / "config.yaml")


def test_a_configuration_is_read_as_it_was_written(tmp_path):
    config = make_config("images", preset="thorough", sets=["backbone.size=[8,16,16]", "data.folds=3"])
    (tmp_path / "config.yaml").write_text(to_yaml(config))
    assert read_config(tmp_path / "config.yaml") == config
