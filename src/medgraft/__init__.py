"""medgraft: find how much of a pretrained network a medical task needs, keep that, prove it."""

__version__ = "0.1.0"
