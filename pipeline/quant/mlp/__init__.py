"""MLP reconstruction: GELU and SiLU become ReLU, whose outputs are easy to quantize."""
