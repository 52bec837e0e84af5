"""One self-contained HTML page, a model card, tables and figures from a finished run."""

from medgraft.report.page import write_model_card, write_report

__all__ = ["write_model_card", "write_report"]
