"""A bar chart of SQNR per layer, and a heat map of ranges per channel."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from pipeline.sensitivity.ranges import TensorRange
from pipeline.sensitivity.result import SensitivityResult

KINDS = ("png", "svg")
_COLUMNS = 128
_FLOOR = -10  # log2 of the smallest share of the largest range that is told apart
_LINE = 0.16  # inches
_DPI = 120
_COLOURS = {True: "#2a6f97", False: "#a9d6e5"}


def sqnr_chart(result: SensitivityResult) -> Figure:
    """Three bars for each layer, side by side: SQNR of its output, alone, and gain when spared."""
    layers = result.layers
    figure = Figure(figsize=(15, 2 + _LINE * len(layers)), layout="constrained")
    panels = figure.subplots(1, 3, sharey=True)
    columns = {
        "SQNR of the layer's output in dB": [found.local_sqnr_db for found in layers],
        "SQNR of the logits in dB,\nthis layer alone quantized": [
            found.effects.alone.sqnr_db for found in layers
        ],
        "gain of SQNR of the logits in dB,\nthis layer alone in float": [
            found.effects.spared.sqnr_db - result.quantized.sqnr_db for found in layers
        ],
    }
    colours = [_COLOURS[found.layer.product] for found in layers]
    for panel, (title, values) in zip(panels, columns.items(), strict=True):
        finite = [value if math.isfinite(value) else 0.0 for value in values]
        panel.barh(range(len(layers)), finite, color=colours)
        panel.set_title(title, fontsize=9)
        panel.grid(axis="x", alpha=0.3)
        panel.margins(y=0.005)
    names = [f"{found.layer.module_path} {found.layer.operator}" for found in layers]
    panels[0].set_yticks(range(len(layers)), names, fontsize=6)
    panels[0].invert_yaxis()
    figure.suptitle(
        f"{result.model}, {result.recipe}, {result.photos} photos: "
        f"{result.quantized.sqnr_db:.1f} dB in all (dark: products, light: stored tensors)"
    )
    return figure


def range_map(result: SensitivityResult) -> Figure:
    """A row for each stored tensor, its channels from the widest to the narrowest."""
    figure = Figure(figsize=(11, 2 + _LINE * len(result.ranges)), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(
        np.array([_profile(found) for found in result.ranges]),
        aspect="auto",
        vmin=_FLOOR,
        vmax=0,
        cmap="viridis",
        interpolation="nearest",
    )
    names = [f"{found.module_path} {found.role}" for found in result.ranges]
    axes.set_yticks(range(len(names)), names, fontsize=6)
    axes.set_xticks([0, _COLUMNS - 1], ["widest channel", "narrowest"])
    axes.set_title(f"{result.model}: range of each channel by that of the widest")
    figure.colorbar(image, label="log2 of the share", shrink=min(1.0, 8 / figure.get_figheight()))
    return figure


def save(figure: Figure, folder: Path, stem: str) -> tuple[Path, ...]:
    """Write a picture in all `KINDS`."""
    paths = tuple(folder / f"{stem}.{kind}" for kind in KINDS)
    for path in paths:
        figure.savefig(path, dpi=_DPI)
    return paths


def _profile(found: TensorRange) -> npt.NDArray[np.float64]:
    """Shares of the widest channel in log2, stretched to `[_COLUMNS]`."""
    widths = _widths(found.channel_low, found.channel_high)
    shares = np.sort(widths / max(widths.max(), np.finfo(np.float64).tiny))[::-1]
    picked = np.linspace(0, len(shares) - 1, _COLUMNS).round().astype(np.int64)
    return np.log2(np.maximum(shares[picked], 2.0**_FLOOR))


def _widths(low: Sequence[float], high: Sequence[float]) -> npt.NDArray[np.float64]:
    return np.subtract(high, low, dtype=np.float64)
