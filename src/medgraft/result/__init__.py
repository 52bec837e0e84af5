"""What jobs found, as values with their files: a run, a comparison, an analysis, advice."""

# Each file is read by those who need it: an analysis loads libraries that a run does not.
__all__: list[str] = []
