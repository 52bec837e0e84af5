"""Judging: the one opening of a test set, folds put together, other cohorts, strategies compared."""

__all__: list[str] = []
