"""Photographs to predictions: one ONNX file, no torch."""
