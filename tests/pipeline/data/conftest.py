"""Folders of small photos."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

Writer = Callable[..., Path]


@pytest.fixture
def write_photo(tmp_path: Path) -> Writer:
    """Write a noise photo, of its own content per name, below `tmp_path`; returns its path."""

    def write(name: str, size: tuple[int, int] = (24, 16), content: str | None = None) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(list((content or name).encode()))
        Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)).save(path)
        return path

    return write
