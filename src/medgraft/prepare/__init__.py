"""From a path and a network's name to what jobs work with: the material of a run."""

from medgraft.prepare.cohort import audited, open_cohort
from medgraft.prepare.material import Material, prepare_material

__all__ = ["Material", "audited", "open_cohort", "prepare_material"]
