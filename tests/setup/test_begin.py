"""A run goes on with the network it began with, whatever has been installed since."""

from pathlib import Path

from medgraft.config import make_config, to_yaml
from medgraft.setup.begin import as_begun


def test_what_the_user_leaves_open_is_taken_from_the_folder(tmp_path: Path) -> None:
    begun = make_config(
        "films", options={"backbone": {"name": "resnet18", "weights": "none", "args": {"drop_rate": 0.1}}}
    )
    (tmp_path / "config.yaml").write_text(to_yaml(begun))
    open_ = make_config("films", options={"backbone": {"size": 64}})
    going_on = as_begun(tmp_path, open_).backbone
    assert (going_on.name, going_on.weights, going_on.args) == ("resnet18", "none", {"drop_rate": 0.1})
    assert going_on.size == 64
    assert as_begun(tmp_path / "new", open_) == open_


def test_what_the_user_says_stays_said(tmp_path: Path) -> None:
    begun = make_config("films", options={"backbone": {"name": "resnet18", "weights": "none"}})
    (tmp_path / "config.yaml").write_text(to_yaml(begun))
    said = make_config("films", options={"backbone": {"name": "resnet50", "weights": "hub"}})
    assert as_begun(tmp_path, said) == said
    half = make_config("films", options={"backbone": {"name": "resnet50"}})
    assert as_begun(tmp_path, half).backbone.name == "resnet50"
