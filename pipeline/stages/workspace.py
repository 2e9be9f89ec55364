"""The cache of a run, and the reporter that hears of every stage."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path

import platformdirs
from pydantic import JsonValue

from pipeline.progress import Reporter, Silent, Step
from pipeline.stages.cache import hash_inputs, run_stage
from pipeline.stages.sources import code_version

TOOLS = ("apache-tvm", "apache-tvm-ffi", "numpy", "pillow", "timm", "torch")


def default_workspace() -> Path:
    """Folder of stage results unless the user names one: in the user's cache directory."""
    return platformdirs.user_cache_path("pocketvit") / "stages"


@dataclass(frozen=True)
class Workspace:
    """Where stages keep their results and whom they tell.

    Attributes:
        folder: of all results; may be deleted at any time, at the price of doing the work again.
        reporter: hears of every stage.
    """

    folder: Path
    reporter: Reporter = Silent()

    def stage(
        self,
        name: str,
        inputs: Mapping[str, JsonValue],
        produce: Callable[[Path, Step], None],
        files: Sequence[Path] = (),
        total: int | None = None,
        title: str = "",
    ) -> Path:
        """Folder with a stage's result, made unless it is there already.

        Args:
            name: of the stage, a key of `SOURCES`.
            inputs: all that the result depends on, besides our own code and the tools' versions.
            produce: writes the result into the empty folder that it is given.
            files: files that the result depends on by their content.
            total: number of units that `produce` advances by, where they can be counted.
            title: what the user reads; the name unless given.
        """
        with self.reporter.step(title or name, total) as step:
            result, made = self.cached(name, inputs, lambda folder: produce(folder, step), files)
            if not made:
                step.reuse()
        return result

    def cached(
        self,
        name: str,
        inputs: Mapping[str, JsonValue],
        produce: Callable[[Path], None],
        files: Sequence[Path] = (),
    ) -> tuple[Path, bool]:
        """Like `stage`, untold; also returns whether the result had to be made."""
        made = False

        def make(folder: Path) -> None:
            nonlocal made
            made = True
            produce(folder)

        values: dict[str, JsonValue] = {
            "inputs": dict(inputs),
            "code": code_version(name),
            "tools": dict(_tool_versions()),
        }
        return run_stage(self.folder, name, hash_inputs(values, files), make), made


@cache
def _tool_versions() -> tuple[tuple[str, str], ...]:
    return tuple((tool, version(tool)) for tool in TOOLS)
