"""Models as files that run elsewhere: ONNX graphs and StableHLO programs."""
