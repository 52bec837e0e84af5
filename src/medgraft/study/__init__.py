"""What is learned from and judged by: a decoded cohort, and the part of it that trials may see."""

from medgraft.study.dataset import Dataset
from medgraft.study.study import Study, open_study, save_study

__all__ = ["Dataset", "Study", "open_study", "save_study"]
