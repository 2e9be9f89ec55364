"""What a run leaves on disk: the artifact directory, and a cache of finished stages.

An artifact holds

    lib/<target>/libpocketvit_<model>.so    one library per target
    include/pocketvit.h                     its C interface
    labels.txt                              one class name per line, in the order of the logits
    manifest.json                           what it is, how it was made, SHA-256 of every file
"""

from pipeline.artifact.manifest import LibraryEntry, Manifest, ModelInfo
from pipeline.artifact.read import Artifact, read_artifact
from pipeline.artifact.stages import hash_inputs, run_stage
from pipeline.artifact.write import BuiltLibrary, write_artifact

__all__ = [
    "Artifact",
    "BuiltLibrary",
    "LibraryEntry",
    "Manifest",
    "ModelInfo",
    "hash_inputs",
    "read_artifact",
    "run_stage",
    "write_artifact",
]
