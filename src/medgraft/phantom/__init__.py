"""Chests that this program draws, so that everything can be tried without a patient."""

__all__: list[str] = []
