"""Every strategy can be spoken of, in its own words and with the settings of the run."""

from typing import Any, get_args

import pytest

from medgraft.config import SearchConfig
from medgraft.report.prose import LOSSES, REFERENCES
from medgraft.report.words import SEARCHES, WORDINGS, chosen_name, depth_sentence, strategy_words
from medgraft.result.run import Chosen, CutFacts
from medgraft.train.mask_losses import MASK_LOSSES
from medgraft.transfer.strategies import STRATEGIES, StrategySettings


def chosen_of(strategy: str, index: int = 3, name: str = "layer1.1", **more: Any) -> Chosen:
    return Chosen(strategy=strategy, cut=CutFacts(index=index, name=name, num_params=1, macs=1), **more)


def test_there_are_words_for_every_strategy_and_every_reference_exists() -> None:
    assert set(WORDINGS) == set(STRATEGIES)
    assert {key for wording in WORDINGS.values() for key in wording.references} <= set(REFERENCES)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_words_have_no_gap(strategy: str) -> None:
    chosen = chosen_of(strategy)
    for text in (strategy_words(chosen), depth_sentence(chosen, is_searched=True), chosen_name(chosen)):
        assert text
        assert "{" not in text
    assert ("layer1.1" in chosen_name(chosen)) == STRATEGIES[strategy].has_depth
    assert ("layer1.1" in depth_sentence(chosen, is_searched=True)) == STRATEGIES[strategy].has_depth


@pytest.mark.parametrize("strategy", [name for name, strategy in STRATEGIES.items() if strategy.has_zero])
def test_depth_zero_is_said_in_words(strategy: str) -> None:
    chosen = chosen_of(strategy, 0, "(none)")
    sentence = depth_sentence(chosen, is_searched=False)
    assert "(none)" not in sentence + chosen_name(chosen)
    assert sentence.startswith(WORDINGS[strategy].nothing)
    assert sentence.endswith("as fixed beforehand")


def test_settings_of_the_run_stand_in_the_words() -> None:
    assert "0.25 of their width" in strategy_words(chosen_of("tf", settings=StrategySettings(width=0.25)))
    assert "random-forest" in strategy_words(chosen_of("hybrid", head="random-forest"))
    assert "by gradient" in strategy_words(chosen_of("frozen", solver="gradient"))
    assert "solved to convergence" in strategy_words(chosen_of("frozen", is_solved=True))


def test_there_are_words_for_every_search_and_every_loss() -> None:
    methods = set(get_args(SearchConfig.model_fields["method"].annotation)) - {"auto"}
    assert methods | {"guided from ftl"} == set(SEARCHES)
    assert set(LOSSES) == set(MASK_LOSSES)
