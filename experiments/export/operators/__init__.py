"""What each operation of a traced program is in ONNX, by kind."""
