"""Tests of the compiler side; the helpers beside this file are importable from every test."""
