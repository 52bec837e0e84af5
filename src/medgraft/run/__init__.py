"""Whole jobs: fit, check, evaluate, demo, doctor; each one call for the command line and for Python."""

__all__: list[str] = []
