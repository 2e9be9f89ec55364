"""Kernels of the integer operators: TIR generators, one family per file."""
