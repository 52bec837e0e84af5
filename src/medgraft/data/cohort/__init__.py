"""Who is in a cohort: files, labels, masks, patients, from folders, tables, exports and archives."""

__all__: list[str] = []
