import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medgraft.analysis.domains import Distance
from medgraft.evaluate.intervals import Difference
from medgraft.evaluate.results import Estimate
from medgraft.report import formatting as fmt

FACTORS = {"k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}


def read_si(text: str) -> float:
    value, _, prefix = text.partition(fmt.NARROW_SPACE)
    return float(value) * FACTORS.get(prefix, 1.0)


@given(st.integers(0, 10**15))
def test_a_size_reads_back_within_half_a_percent(size):
    assert read_si(fmt.si(size)) == pytest.approx(size, rel=0.0051)


@given(st.floats(1e3, 9e14))
def test_a_size_has_three_significant_digits(size):
    digits = fmt.si(size).partition(fmt.NARROW_SPACE)[0].replace(".", "")
    assert len(digits) == 3


@given(st.floats(-1, 1), st.integers(0, 5))
def test_a_number_reads_back_to_its_decimals_and_zero_has_no_sign(value, digits):
    text = fmt.number(value, digits)
    assert float(text.replace(fmt.MINUS, "-")) == pytest.approx(value, abs=0.5 * 10**-digits + 1e-12)
    assert not (text.startswith(fmt.MINUS) and float(text[1:]) == 0)


@given(st.floats(-1, 1))
def test_a_difference_always_shows_its_sign_unless_it_rounds_to_zero(value):
    text = fmt.signed(value)
    assert (text[0] in f"+{fmt.MINUS}") == (text != "0.000")


@given(st.floats(0, 1))
def test_a_p_value_is_never_printed_as_zero(p):
    assert fmt.p_value(p) != "p = 0.000"


@given(st.floats(0, 1e6))
def test_a_duration_never_shows_sixty_seconds_or_minutes(seconds):
    text = fmt.duration(seconds)
    assert not re.search(rf"(?<![\d.])60{fmt.NARROW_SPACE}(s|min)", text)


@pytest.mark.parametrize("absent", [None, math.nan])
def test_what_was_not_measured_is_a_dash(absent):
    written = [fmt.number, fmt.signed, fmt.percent, fmt.si, fmt.integer, fmt.milliseconds, fmt.duration]
    assert {write(absent) for write in written} == {fmt.ABSENT}
    assert fmt.interval(absent) == ""
    assert fmt.p_value(absent) == fmt.ABSENT


def test_an_interval_with_a_missing_end_is_not_printed():
    assert fmt.with_interval(Estimate(value=0.5, ci95=(math.nan, math.nan))) == "0.500"


def test_everything_that_has_a_value_and_an_interval_is_written_with_both():
    distance = Distance(value=2.0, ci95=(1.0, 3.0))
    for metric in (Estimate(value=2.0, ci95=(1.0, 3.0)), Difference(value=2.0, ci95=(1.0, 3.0), p=0.5), distance):
        assert fmt.with_interval(metric) == "2.000 (1.000–3.000)"


def test_several_seeds_are_printed_only_where_they_ran():
    assert fmt.sd_over_seeds(Estimate(value=0.5, mean=0.5)) == ""
    assert fmt.sd_over_seeds(Estimate(value=0.5, mean=0.52, sd=0.01)) == "0.520 ± 0.010"


def test_percentages_below_ten_keep_a_decimal():
    assert [fmt.percent(x) for x in (0.0991, 0.0999, 0, 1.2)] == [
        f"{x}{fmt.NARROW_SPACE}%" for x in ("9.9", "10", "0", "120")
    ]
