"""Quantization: recipe and calibration photos in, a graph with quantizers out."""
