"""Data sets by name, in one common form (``Dataset``)."""
