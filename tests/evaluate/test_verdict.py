import pytest
from hypothesis import given
from hypothesis import strategies as st

from medgraft.errors import ConfigError
from medgraft.evaluate.intervals import Difference
from medgraft.evaluate.verdict import verdict, verdict_words


def difference(low: float, high: float) -> Difference:
    return Difference(value=(low + high) / 2, ci95=(low, high), p=0.04)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.001, 0.02, "better"),
        (0.0, 0.02, "non-inferior"),
        (-0.019, 0.01, "non-inferior"),
        (-0.019, -0.001, "non-inferior"),
        (-0.02, 0.01, "inconclusive"),
        (-0.05, 0.0, "inconclusive"),
        (-0.05, -0.001, "worse"),
        (-0.2, 0.3, "inconclusive"),
    ],
)
def test_the_interval_decides_the_verdict(low: float, high: float, expected: str) -> None:
    assert verdict(difference(low, high), margin=0.02) == expected


@given(low=st.floats(-0.5, 0.5), width=st.floats(0, 0.5), margin=st.floats(0.001, 0.2))
def test_proven_is_said_only_of_better_and_non_inferior(low: float, width: float, margin: float) -> None:
    gap = difference(low, low + width)
    word, (headline, numbers) = verdict(gap, margin), verdict_words(gap, margin)
    assert ("proven" in headline) == (word in ("better", "non-inferior"))
    assert word in headline
    assert "proven" not in numbers


@given(low=st.floats(-0.5, 0.5), width=st.floats(0, 0.5), margin=st.floats(0.001, 0.1))
def test_a_wider_margin_never_takes_back_non_inferiority(low: float, width: float, margin: float) -> None:
    gap = difference(low, low + width)
    if verdict(gap, margin) in ("better", "non-inferior"):
        assert verdict(gap, 2 * margin) == verdict(gap, margin)


def test_a_significant_loss_inside_the_margin_is_named() -> None:
    assert "loss itself is statistically significant" in verdict_words(difference(-0.01, -0.002), 0.02)[1]
    assert "significant" not in verdict_words(difference(-0.01, 0.002), 0.02)[1]


def test_the_sentence_carries_the_numbers_and_names() -> None:
    gap = Difference(value=-0.03, ci95=(-0.05, -0.01), p=0.0004)
    assert verdict_words(gap, 0.02, chosen="Layer 2", baseline="all layers", metric="AUPRC") == (
        "Layer 2 is worse than all layers",
        "AUPRC difference -0.0300 (95 % interval -0.0500 to -0.0100, p < 0.001)",
    )


@pytest.mark.parametrize("margin", [0.0, -0.02, 1.0, float("nan")])
def test_a_margin_that_makes_no_sense_is_refused(margin: float) -> None:
    with pytest.raises(ConfigError, match="margin must be above 0 and below 1"):
        verdict(difference(0, 0), margin)
