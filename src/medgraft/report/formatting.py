"""Numbers as text, the same way everywhere in the report.

Three decimals for metrics, three significant digits for sizes, a real minus sign, a narrow no-break space
before the unit, and a dash for what was not measured.
"""

import math
from collections.abc import Sequence
from typing import Final

from medgraft.analysis.domains import Distance
from medgraft.evaluate.intervals import Difference
from medgraft.evaluate.results import Estimate
from medgraft.result.comparison import MetricOverSeeds

__all__ = [
    "ABSENT",
    "digits_of",
    "duration",
    "file_size",
    "sides",
    "integer",
    "interval",
    "learning_rate",
    "milliseconds",
    "number",
    "p_value",
    "percent",
    "sd_over_seeds",
    "share",
    "si",
    "signed",
    "signed_with_interval",
    "value_of",
    "with_interval",
]

Number = float | int | None
Metric = Estimate | Difference | Distance | Number
Interval = Estimate | Difference | Distance | MetricOverSeeds | Number
ABSENT: Final = "–"
NARROW_SPACE: Final = "\u202f"
MINUS: Final = "\u2212"
SI_FACTORS: Final = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def value_of(metric: Metric) -> float | None:
    """The plain value of a metric that is a number, an estimate, a difference, or absent.

    Args:
        metric: NaN counts as absent.

    Examples:
        >>> value_of(Estimate(value=0.9, ci95=(0.8, 1.0))), value_of(0.5), value_of(None)
        (0.9, 0.5, None)
    """
    plain = metric.value if isinstance(metric, (Estimate, Difference, Distance)) else metric
    return None if plain is None or math.isnan(plain) else float(plain)


def number(value: Metric, digits: int = 3) -> str:
    """A number with a fixed count of decimals.

    Args:
        value: A number or a metric (see `value_of`).
        digits: Decimals, 0 or more.

    Examples:
        >>> number(0.9364), number(-0.5, 1), number(None)
        ('0.936', '−0.5', '–')
    """
    plain = value_of(value)
    if plain is None:
        return ABSENT
    text = f"{abs(plain):.{digits}f}"
    return f"{MINUS}{text}" if plain < 0 and float(text) else text


def digits_of(ends: tuple[float, float]) -> int:
    """Decimals for an interval of any scale: two digits of its larger end, at least three decimals, at most eight.

    Args:
        ends: Of the interval.

    Examples:
        >>> digits_of((120.0, 130.0)), digits_of((0.0002, 0.0004))
        (3, 5)
    """
    largest = max(abs(end) for end in ends)
    return 3 if largest == 0 else min(8, max(3, 1 - math.floor(math.log10(largest))))


def signed(value: Metric, digits: int = 3) -> str:
    """A difference, with its sign.

    Args:
        value: A number or a metric.
        digits: Decimals, 0 or more.

    Examples:
        >>> signed(0.0051), signed(-0.0051), signed(0.0)
        ('+0.005', '−0.005', '0.000')
    """
    plain = value_of(value)
    if plain is None:
        return ABSENT
    text = number(plain, digits)
    return f"+{text}" if plain > 0 and float(text) else text


def interval(metric: Interval, digits: int = 3, *, is_signed: bool = False) -> str:
    """The 95 % interval of a metric, or an empty string where it has none.

    Args:
        metric: A number has no interval.
        digits: Decimals, 0 or more.
        is_signed: Print both ends with their sign, joined by "to" so that no sign reads as a dash.

    Examples:
        >>> interval(Estimate(value=0.9, ci95=(0.85, 0.94)))
        '0.850–0.940'
        >>> interval(Difference(value=0.01, ci95=(-0.02, 0.04), p=0.5), is_signed=True)
        '−0.020 to +0.040'
    """
    ends = metric.ci95 if isinstance(metric, (Estimate, Difference, Distance, MetricOverSeeds)) else None
    if ends is None or None in map(value_of, ends):
        return ""
    low, high = ends
    if is_signed:
        return f"{signed(low, digits)} to {signed(high, digits)}"
    return f"{number(low, digits)}–{number(high, digits)}"


def with_interval(metric: Metric, digits: int = 3) -> str:
    """A metric followed by its interval in brackets where it has one.

    Args:
        metric: A number or a metric.
        digits: Decimals, 0 or more.

    Examples:
        >>> with_interval(Estimate(value=0.9, ci95=(0.85, 0.94)))
        '0.900 (0.850–0.940)'
        >>> with_interval(0.25, 2)
        '0.25'
    """
    ends = interval(metric, digits)
    return f"{number(metric, digits)} ({ends})" if ends else number(metric, digits)


def signed_with_interval(metric: Metric, digits: int = 3) -> str:
    """A difference followed by its interval in brackets where it has one.

    Args:
        metric: A number or a metric.
        digits: Decimals, 0 or more.

    Examples:
        >>> signed_with_interval(Difference(value=-0.004, ci95=(-0.015, 0.007), p=0.5))
        '−0.004 (−0.015 to +0.007)'
    """
    ends = interval(metric, digits, is_signed=True)
    return f"{signed(metric, digits)} ({ends})" if ends else signed(metric, digits)


def sd_over_seeds(metric: Interval, digits: int = 3) -> str:
    """Mean ± sd over seeds, or an empty string where fewer than two seeds ran.

    Args:
        metric: With its mean and its standard deviation, as far as there is one.
        digits: Decimals, 0 or more.

    Examples:
        >>> sd_over_seeds(Estimate(value=0.9, mean=0.91, sd=0.004))
        '0.910 ± 0.004'
    """
    if not isinstance(metric, (Estimate, MetricOverSeeds)) or value_of(metric.sd) is None:
        return ""
    return f"{number(metric.mean, digits)} ± {number(metric.sd, digits)}"


def p_value(value: Difference | Number) -> str:
    """A p-value with its sign of equality; never "0.000".

    Args:
        value: 0 to 1, or a metric with ``p``, or None.

    Examples:
        >>> p_value(0.0312), p_value(0.00002), p_value(None)
        ('p = 0.031', 'p < 0.001', '–')
    """
    plain = value.p if isinstance(value, Difference) else value_of(value)
    if plain is None:
        return ABSENT
    return "p < 0.001" if plain < 0.001 else f"p = {plain:.3f}"


def percent(value: Number) -> str:
    """A share as a percentage: no decimals from 10 % up, one below.

    Args:
        value: A share, 1 is 100 %.

    Examples:
        >>> percent(0.2587).replace("\u202f", " "), percent(0.0123).replace("\u202f", " ")
        ('26 %', '1.2 %')
    """
    plain = value_of(value)
    if plain is None:
        return ABSENT
    return f"{number(100 * plain, 1 if abs(plain) < 0.0995 and plain else 0)}{NARROW_SPACE}%"


def share(part: Number, whole: Number) -> float | None:
    """`part` divided by `whole`, or None where either is absent or the whole is zero.

    Args:
        part: A number or None.
        whole: A number or None, in the same unit.

    Examples:
        >>> share(1, 4), share(1, None), share(1, 0)
        (0.25, None, None)
    """
    top, bottom = value_of(part), value_of(whole)
    return None if top is None or not bottom else top / bottom


def integer(value: Number) -> str:
    """A count with its thousands apart.

    Args:
        value: A count or None.

    Examples:
        >>> integer(121345).replace("\u202f", " ")
        '121 345'
    """
    plain = value_of(value)
    return ABSENT if plain is None else f"{round(plain):,}".replace(",", NARROW_SPACE).replace("-", MINUS)


def si(value: Number, unit: str = "") -> str:
    """A size with three significant digits and a decimal prefix.

    Args:
        value: Zero or more.
        unit: Put behind the prefix.

    Examples:
        >>> [si(x).replace("\u202f", " ") for x in (184_321, 23_508_032, 4.12e9, 96, 999_600)]
        ['184 k', '23.5 M', '4.12 G', '96', '1.00 M']
    """
    plain = value_of(value)
    if plain is None:
        return ABSENT
    for factor, prefix in SI_FACTORS:
        if plain >= 0.9995 * factor:
            return f"{_three_digits(plain / factor)}{NARROW_SPACE}{prefix}{unit}"
    text = f"{plain:.0f}" if plain == int(plain) else _three_digits(plain)
    return f"{text}{NARROW_SPACE}{unit}" if unit else text


def sides(value: Sequence[int]) -> str:
    """Sides of an input.

    Examples:
        >>> sides([64, 64]), sides([16, 64, 64])
        ('64 × 64 px', '16 × 64 × 64 voxels')
    """
    return " × ".join(str(side) for side in value) + (" px" if len(value) == 2 else " voxels")


def file_size(value: Number) -> str:
    """Bytes with a decimal prefix.

    Args:
        value: Bytes.

    Examples:
        >>> file_size(1_440_000).replace("\u202f", " ")
        '1.44 MB'
    """
    return si(value, "B")


def milliseconds(value: Number) -> str:
    """A latency with three significant digits.

    Args:
        value: ms.

    Examples:
        >>> milliseconds(8.1234).replace("\u202f", " ")
        '8.12 ms'
    """
    plain = value_of(value)
    return ABSENT if plain is None else f"{_three_digits(plain)}{NARROW_SPACE}ms"


def duration(value: Number) -> str:
    """A time span in the two largest units that matter.

    Args:
        value: s, zero or more.

    Examples:
        >>> [duration(x).replace("\u202f", " ") for x in (0.84, 42, 252, 7500)]
        ['0.84 s', '42 s', '4 min 12 s', '2 h 5 min']
    """
    plain = value_of(value)
    if plain is None:
        return ABSENT
    if plain < 10:
        return f"{_three_digits(plain) if plain else '0'}{NARROW_SPACE}s"
    minutes, seconds = divmod(round(plain), 60)
    hours, minutes_left = divmod(minutes, 60)
    if hours:
        return f"{hours}{NARROW_SPACE}h {minutes_left}{NARROW_SPACE}min"
    return f"{minutes}{NARROW_SPACE}min {seconds}{NARROW_SPACE}s" if minutes else f"{seconds}{NARROW_SPACE}s"


def learning_rate(value: Number) -> str:
    """A learning rate as it is written in a configuration; zero is "frozen or removed" and prints as a dash.

    Args:
        value: Zero or more.

    Examples:
        >>> learning_rate(0.001), learning_rate(0.001 / 3), learning_rate(3e-5), learning_rate(0)
        ('0.001', '0.000333', '3e-05', '–')
    """
    plain = value_of(value)
    return f"{plain:.3g}" if plain else ABSENT


def _three_digits(value: float) -> str:
    if abs(value) < 1 and (text := f"{value:.3f}") != "1.000":
        return text.rstrip("0").rstrip(".")
    return f"{value:#.3g}".rstrip(".")
