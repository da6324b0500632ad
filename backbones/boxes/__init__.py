"""Boxes: static shapes, jit and vmap clean."""
