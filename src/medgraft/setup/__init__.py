"""How every job begins: what is refused, the plan, and the folder that keeps it."""

__all__: list[str] = []
