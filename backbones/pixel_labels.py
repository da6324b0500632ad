"""The labels of pixels: classes from 0, and one that is none. It needs no JAX, as data and reports do not."""

# The label of pixels that count for nothing, in losses as in metrics.
IGNORE = 255
