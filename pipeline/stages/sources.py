"""The source files that the result of each stage can depend on, so that other edits keep it.

Files and folders of the project. They cover all that the stage's module imports, however
indirectly; the names are those of the stages in the cache.
"""

from functools import cache
from pathlib import Path

import pipeline
from pipeline.files.hashing import sha256_tree

ROOT = Path(pipeline.__path__[0]).parent

EVERY_STAGE = (
    "pipeline/__init__.py",
    "pipeline/errors.py",
    "pipeline/files",
    "pipeline/progress.py",
    "pipeline/stages/__init__.py",
    "pipeline/stages/cache.py",
    "pipeline/stages/sources.py",
    "pipeline/stages/workspace.py",
)
FLOAT_MODEL = (
    *EVERY_STAGE,
    "pipeline/canonical",
    "pipeline/data",
    "pipeline/models",
    "pipeline/operators.py",
    "pipeline/stages/float_model.py",
)
QUANTIZE = (*FLOAT_MODEL, "pipeline/quant", "pipeline/stages/quantize.py")
INTEGER_MODULE = ("pipeline/stages/integer_module.py", "tvm_passes")
PHOTOS = (*EVERY_STAGE, "pipeline/data", "pipeline/stages/photos.py")
LOGITS = (*PHOTOS, "pipeline/stages/logits.py")

SOURCES: dict[str, tuple[str, ...]] = {
    "validation": PHOTOS,
    "quantize": QUANTIZE,
    "lower": (*QUANTIZE, *INTEGER_MODULE, "pipeline/frontend", "pipeline/stages/lower.py"),
    "build": (*EVERY_STAGE, *INTEGER_MODULE, "pipeline/artifact", "pipeline/stages/build.py"),
    "float": (*LOGITS, *FLOAT_MODEL, "pipeline/stages/float_logits.py"),
    "simulated": (*LOGITS, *QUANTIZE, "pipeline/stages/simulated_logits.py"),
    "integer": (*LOGITS, "pipeline/device", "pipeline/stages/integer_logits.py"),
}


@cache
def code_version(stage: str) -> str:
    """SHA-256 of the source files of a stage."""
    return sha256_tree(ROOT, SOURCES[stage])
