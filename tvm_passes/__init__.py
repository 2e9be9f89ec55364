"""Compiler side of PocketViT: Relax passes, integer operators, kernels, ahead-of-time driver."""
