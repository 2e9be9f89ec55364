"""From a timm model to one simple, equal float graph that all later stations understand."""

from pipeline.canonical.pipeline import PASSES, canonicalize

__all__ = ["PASSES", "canonicalize"]
