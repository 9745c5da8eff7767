"""What a model file says of itself, read without onnx, and what it must not hold."""
