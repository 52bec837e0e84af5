"""A cohort decoded once: rows of memory-mapped files, kept on this machine."""

__all__: list[str] = []
