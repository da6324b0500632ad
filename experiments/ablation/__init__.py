"""The ablation engine: axes → cells → one backbone pass per data set → all heads in one program → results."""
