"""What a network's features are worth and how transfer changed them: similarity, probes, distances, importance."""

from medgraft.analysis.change import LayerChange, block_importance, weight_changes
from medgraft.analysis.domains import (
    Distance,
    FeatureStatistics,
    fid,
    fid_of_statistics,
    fid_with_interval,
    kid,
    kid_with_interval,
    statistics_of,
)
from medgraft.analysis.layers import CutReader, features_at_cuts, sample_positions
from medgraft.analysis.reuse import SMALLEST_BATCH, CkaSums, Reuse, add_cuts, most_components, reuse_of
from medgraft.analysis.similarity import (
    Moments,
    area_between,
    canonical_correlations,
    linear_cka,
    moments_of,
    procrustes_distance,
    pwcca,
    random_reference,
    rbf_cka,
    svcca,
)
from medgraft.analysis.transferability import h_score, knn_probs, linear_probe, logme, nleep

__all__ = [
    "SMALLEST_BATCH",
    "CkaSums",
    "CutReader",
    "Distance",
    "FeatureStatistics",
    "LayerChange",
    "Moments",
    "Reuse",
    "add_cuts",
    "area_between",
    "block_importance",
    "canonical_correlations",
    "features_at_cuts",
    "fid",
    "fid_of_statistics",
    "fid_with_interval",
    "h_score",
    "kid",
    "kid_with_interval",
    "knn_probs",
    "linear_cka",
    "linear_probe",
    "logme",
    "moments_of",
    "most_components",
    "nleep",
    "procrustes_distance",
    "pwcca",
    "random_reference",
    "rbf_cka",
    "reuse_of",
    "sample_positions",
    "statistics_of",
    "svcca",
    "weight_changes",
]
