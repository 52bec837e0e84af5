"""One self-contained HTML page, a model card, tables and figures from a finished run."""

from medgraft.report.analysis_page import write_analysis
from medgraft.report.comparison_page import write_comparison
from medgraft.report.page import write_model_card, write_report

__all__ = ["write_analysis", "write_comparison", "write_model_card", "write_report"]
