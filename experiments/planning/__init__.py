"""What a program will take before it runs: ahead-of-time compilation, reading HLO, the search for a batch."""
