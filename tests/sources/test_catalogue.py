"""The catalogue says what is so: networks exist, layouts are known, timm agrees, and the page is written from it."""

import dataclasses
import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest
import timm

from medgraft.errors import WeightsError
from medgraft.sources.catalogue import SOURCES, nearest_sources
from medgraft.sources.catalogue.sizes import SIZES
from medgraft.sources.known import KnownSource
from medgraft.sources.layouts.published import LAYOUTS, PLAIN
from medgraft.sources.locate import locate

ROOT = Path(__file__).parents[2]
# What the issue of every group names: at least these are there.
NAMED = (
    *("resnet50-imagenet", "resnet101-imagenet", "resnet152-imagenet", "densenet121-imagenet", "swin-tiny-imagenet"),
    *("swin-small-imagenet", "swin-base-imagenet22k", "convnext-tiny-imagenet", "convnext-base-imagenet22k"),
    *("deit-small-imagenet", "vit-base-imagenet21k", "efficientnet-b0-imagenet", "efficientnet-lite0-imagenet"),
    *("insdis-resnet50", "moco-v1-resnet50", "moco-v2-resnet50", "pirl-resnet50", "infomin-resnet50"),
    *("pcl-v1-resnet50", "pcl-v2-resnet50", "simclr-v1-resnet50", "simclr-v2-resnet50", "byol-resnet50"),
    *("swav-resnet50", "deepcluster-v2-resnet50", "sela-v2-resnet50", "barlow-twins-resnet50"),
    *("simsiam-resnet50", "vicreg-resnet50", "densecl-resnet50"),
)


@pytest.fixture(scope="module")
def recipe() -> ModuleType:
    spec = importlib.util.spec_from_file_location("write_catalogue", ROOT / "recipes" / "catalogue" / "write.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_sources_of_the_literature_are_there() -> None:
    assert [name for name in NAMED if name not in SOURCES] == []
    assert len(SOURCES) >= 100


@pytest.mark.parametrize("source", SOURCES.values(), ids=lambda source: source.name)
def test_every_entry_is_whole(source: KnownSource) -> None:
    assert re.fullmatch(r"[a-z0-9][a-z0-9.-]*", source.name)
    assert source.layout in (*LAYOUTS, PLAIN)
    for text in (source.data, source.objective, source.licence, source.citation, source.place.name):
        assert text
        assert text == text.strip()
    assert len(source.input.mean) == len(source.input.std)
    assert len(source.input.mean) in (0, 1, 3)
    assert all(std > 0 for std in source.input.std)
    assert 1 < source.size_mb < 6000
    assert re.fullmatch(r"[0-9a-f]{0,64}", source.place.sha256)
    if source.place.kind in ("url", "by-hand"):
        assert source.place.name.startswith("https://")
    if re.search(r"NC|ASU|DINOv3", source.licence):
        assert source.acceptance


@pytest.mark.parametrize("name", [name for name, source in SOURCES.items() if source.place.kind == "timm"])
def test_what_timm_publishes_is_as_timm_says(name: str) -> None:
    source = SOURCES[name]
    config = timm.get_pretrained_cfg(source.place.name)
    assert config is not None
    assert config.has_weights
    assert source.network == source.place.name.partition(".")[0]
    assert source.input.mean == pytest.approx(config.mean, abs=1e-4)
    assert source.input.std == pytest.approx(config.std, abs=1e-4)


def test_the_page_and_the_sizes_are_written_from_the_catalogue(recipe: ModuleType) -> None:
    page = (ROOT / "docs" / "sources.md").read_text(encoding="utf-8")
    assert recipe.page(page) == page, "run: python recipes/catalogue/write.py"
    assert recipe.sizes() == SIZES, "run: python recipes/catalogue/write.py"


def test_sources_of_one_layout_and_size_that_differ_in_the_network_are_told_apart_by_what_it_computes() -> None:
    alike: dict[tuple[str, int], set[str]] = {}
    for name, source in SOURCES.items():
        alike.setdefault((source.layout, SIZES[name]), set()).add(f"{source.network} {source.args}")
    # Plain names of tensors say nothing of padding or heads: there a file alone tells no such network.
    doubtful = {key: networks for key, networks in alike.items() if len(networks) > 1 and key[0] != PLAIN}
    assert doubtful == {}


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    assert "moco-v2-resnet50" in nearest_sources("moco-v2-resnet5")
    with pytest.raises(WeightsError, match=r"got 'moco-v2-resnet5'\. Nearest: moco-v2-resnet50"):
        locate("moco-v2-resnet5")


def test_a_name_whose_file_is_elsewhere_says_how_to_bring_it() -> None:
    with pytest.raises(
        WeightsError, match=r"medgraft weights fetch swav-resnet50; from a file: medgraft weights import"
    ):
        locate("swav-resnet50")


def test_names_are_unique() -> None:
    assert all(name == source.name for name, source in SOURCES.items())
    assert all(dataclasses.is_dataclass(source) for source in SOURCES.values())
