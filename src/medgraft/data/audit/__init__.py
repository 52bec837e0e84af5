"""What is wrong with a cohort: duplicates, leaks, and what images, masks and tables show."""

__all__: list[str] = []
