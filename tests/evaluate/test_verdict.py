import pytest
from hypothesis import given
from hypothesis import strategies as st

from medgraft.errors import ConfigError
from medgraft.evaluate.intervals import Difference, Spread, student_difference
from medgraft.evaluate.verdict import adjusted_verdict, loss_p, verdict, verdict_words


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
    word, (headline, numbers) = verdict(gap, margin), verdict_words(gap, margin, num_trainings=3)
    assert ("proven" in headline) == (word in ("better", "non-inferior"))
    assert word in headline
    assert "proven" not in numbers
    for num in (1, 2):
        headline, numbers = verdict_words(gap, margin, num_trainings=num)
        assert "proven" not in headline
        assert word in headline
        assert ("as trained here" in headline) == ("another training" in numbers) == (word != "inconclusive")


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
    assert verdict_words(gap, 0.02, chosen="Layer 2", baseline="all layers", metric="AUPRC", num_trainings=3) == (
        "Layer 2 is worse than all layers",
        "AUPRC difference -0.0300 (95 % interval -0.0500 to -0.0100, p < 0.001)",
    )


def test_the_sentence_tells_what_the_interval_is_made_of() -> None:
    gap = student_difference(0.1, Spread(cases=0.01, trainings=0.02, freedom=30))
    assert "; standard error 0.0100 over cases, 0.0200 assumed over trainings)" in verdict_words(gap, 0.02)[1]
    gap = student_difference(0.1, Spread(cases=0.01, trainings=0.02, freedom=30, is_measured=True))
    assert "0.0200 over trainings)" in verdict_words(gap, 0.02, num_trainings=3)[1]
    gap = student_difference(0.1, Spread(cases=0.1, trainings=0.0, freedom=9))
    assert "over trainings" not in verdict_words(gap, 0.02)[1]


@given(value=st.floats(-0.1, 0.1), cases=st.floats(0.001, 0.1), trainings=st.floats(0, 0.1), freedom=st.floats(2, 200))
def test_alone_the_adjusted_verdict_is_the_verdict(
    value: float, cases: float, trainings: float, freedom: float
) -> None:
    gap = student_difference(value, Spread(cases=cases, trainings=trainings, freedom=freedom))
    assert adjusted_verdict(gap, 0.02, gap.p, loss_p(gap, 0.02)) == verdict(gap, 0.02)


def test_what_does_not_outlive_the_adjustment_is_not_said() -> None:
    better = student_difference(0.03, Spread(cases=0.012, trainings=0.005, freedom=40))
    assert verdict(better, 0.02) == "better"
    assert adjusted_verdict(better, 0.02, 0.19, 8 * loss_p(better, 0.02)) == "non-inferior"
    equal = student_difference(0.0, Spread(cases=0.009, trainings=0.0, freedom=400))
    assert verdict(equal, 0.02) == "non-inferior"
    assert adjusted_verdict(equal, 0.02, 1.0, 8 * loss_p(equal, 0.02)) == "inconclusive"
    worse = student_difference(-0.05, Spread(cases=0.02, trainings=0.0, freedom=400))
    assert verdict(worse, 0.02) == "worse"
    assert adjusted_verdict(worse, 0.02, 0.1, 1.0) == "inconclusive"


def test_a_loss_without_spread_is_sure_or_excluded() -> None:
    assert loss_p(Difference(value=0.0, ci95=(0.0, 0.0), p=1.0), 0.02) == 0
    assert loss_p(Difference(value=-0.1, ci95=(-0.1, -0.1), p=0.1), 0.02) == 1


@pytest.mark.parametrize("margin", [0.0, -0.02, 1.0, float("nan")])
def test_a_margin_that_makes_no_sense_is_refused(margin: float) -> None:
    with pytest.raises(ConfigError, match="margin must be above 0 and below 1"):
        verdict(difference(0, 0), margin)
