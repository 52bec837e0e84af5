"""What test results prove: intervals, paired comparisons, verdicts, operating points, cost."""

from medgraft.evaluate.bootstrap import (
    bootstrap_interval,
    metric_replicates,
    paired_difference,
)
from medgraft.evaluate.calibration import apply_temperature, fit_temperature
from medgraft.evaluate.comparison import compare
from medgraft.evaluate.delong import delong_covariance, delong_interval, delong_test
from medgraft.evaluate.efficiency import file_bytes, latency_ms
from medgraft.evaluate.intervals import Difference, clustered_proportion, wilson_interval
from medgraft.evaluate.ledger import open_test
from medgraft.evaluate.operating_point import (
    OperatingPoint,
    apply_thresholds,
    choose_thresholds,
    parse_operating_point,
)
from medgraft.evaluate.replicates import bootstrap_weights, group_strata, replicate_weights
from medgraft.evaluate.results import Comparison, Estimate, ModelResult, TestResult
from medgraft.evaluate.summary import site_results, summarise, with_points
from medgraft.evaluate.verdict import Verdict, verdict, verdict_words

__all__ = [
    "Comparison",
    "Difference",
    "Estimate",
    "ModelResult",
    "OperatingPoint",
    "TestResult",
    "Verdict",
    "apply_temperature",
    "apply_thresholds",
    "bootstrap_interval",
    "bootstrap_weights",
    "choose_thresholds",
    "clustered_proportion",
    "compare",
    "delong_covariance",
    "delong_interval",
    "delong_test",
    "file_bytes",
    "fit_temperature",
    "group_strata",
    "latency_ms",
    "metric_replicates",
    "open_test",
    "paired_difference",
    "parse_operating_point",
    "replicate_weights",
    "site_results",
    "summarise",
    "verdict",
    "verdict_words",
    "wilson_interval",
    "with_points",
]
