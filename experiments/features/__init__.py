"""Features of frozen backbones: one pass over a data set, and a store that outlives a run."""
