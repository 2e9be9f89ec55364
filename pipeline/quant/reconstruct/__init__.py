"""Reconstruction: rounding of weights and scales of activations, trained unit by unit."""
