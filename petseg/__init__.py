"""petseg: train a pet segmenter, export it to ONNX, stream folders of photos into masks."""

__version__ = "0.1.0"
