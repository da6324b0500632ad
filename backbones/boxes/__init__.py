"""Boxes: static shapes, jit and vmap clean. A box is left, top, right, bottom in pixels, and has no pixel more."""
