"""The artifact: the directory that a run is for.

It holds

    lib/<target>/libpocketvit_<model>.so    one library per target
    include/pocketvit.h                     its C interface
    labels.txt                              one class name per line, in the order of the logits
    manifest.json                           what it is, how it was made, SHA-256 of every file
"""

from pipeline.artifact.manifest import LibraryEntry, Manifest, ModelInfo
from pipeline.artifact.read import Artifact, read_artifact
from pipeline.artifact.write import BuiltLibrary, write_artifact

__all__ = [
    "Artifact",
    "BuiltLibrary",
    "LibraryEntry",
    "Manifest",
    "ModelInfo",
    "read_artifact",
    "write_artifact",
]
