"""The cost of a program before it runs: ahead-of-time compilation, reading HLO, the search for a batch size."""
