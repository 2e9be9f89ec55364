"""The files that every peer starts from; readable with NumPy alone, in any environment."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Source:
    """A float network and images for it, on disk.

    Attributes:
        folder: holds the files below.
    """

    folder: Path

    @property
    def onnx(self) -> Path:
        """The network as ONNX, input ``x``."""
        return self.folder / "model.onnx"

    @property
    def program(self) -> Path:
        """The network as a program of ``torch.export``."""
        return self.folder / "model.pt2"

    @property
    def facts(self) -> dict[str, Any]:
        """``name``, ``macs`` of one inference, and ``timm``: whether the model is timm's."""
        facts: dict[str, Any] = json.loads((self.folder / "facts.json").read_text())
        return facts

    def images(self) -> npt.NDArray[np.float32]:
        """Calibration images ``[N, C, H, W]``, normalised; the first is the one to run."""
        images: npt.NDArray[np.float32] = np.load(self.folder / "images.npy")
        return images

    def image(self) -> npt.NDArray[np.float32]:
        """The image to run, ``[1, C, H, W]``."""
        return np.ascontiguousarray(np.load(self.folder / "images.npy", mmap_mode="r")[:1])

    def pixels(self) -> npt.NDArray[np.uint8]:
        """The same images as a library takes them, uint8 ``[N, H, W, C]``."""
        pixels: npt.NDArray[np.uint8] = np.load(self.folder / "pixels.npy")
        return pixels
