"""Write what every peer starts from: `Source`."""

import hashlib
import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from pipeline.data.calibration import calibration_images
from pipeline.files.staging import staged_directory
from scripts.benchmark.networks import Network, count_macs, load_network
from scripts.benchmark.source import Source

FORMAT = 1  # raise it when the files change
CALIBRATION_IMAGES = 32
OPSET = 17


def export(name: str, cache: Path, photos: Path | None) -> Source:
    """The files of a network, made unless they are there.

    Args:
        name: of the network.
        cache: parent of all sources.
        photos: folder of calibration photos; None for random pixels, which is all the same to the
            speed.

    Raises:
        UserError: there is no such network, or too few photos.
    """
    key = hashlib.sha256(f"{FORMAT} {torch.__version__} {photos}".encode()).hexdigest()[:8]
    source = Source(cache / f"{name}-{key}")
    if source.folder.is_dir():
        return source
    network = load_network(name)
    with staged_directory(source.folder, replace=False) as folder:
        _write(Source(folder), network, photos)
    return source


def _write(source: Source, network: Network, photos: Path | None) -> None:
    pixels = _pixels(network, photos)
    np.save(source.folder / "pixels.npy", pixels)
    images = _normalise(network, pixels)
    np.save(source.folder / "images.npy", images)
    example = torch.from_numpy(images[:1])
    torch.export.save(torch.export.export(network.module, (example,)), source.program)
    torch.onnx.export(
        network.module,
        (example,),
        str(source.onnx),
        input_names=["x"],
        output_names=["y"],
        opset_version=OPSET,
        dynamo=False,
    )
    facts = {"name": network.name, "macs": count_macs(network)}
    (source.folder / "facts.json").write_text(json.dumps(facts))


def _pixels(network: Network, photos: Path | None) -> npt.NDArray[np.uint8]:
    if photos is not None and network.preprocessing is not None:
        drawn = calibration_images(photos, CALIBRATION_IMAGES, 0, network.preprocessing)
        return np.stack([photo.pixels for photo in drawn])
    _, channels, height, width = network.shape
    shape = (CALIBRATION_IMAGES, height, width, channels)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def _normalise(network: Network, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    settings = network.preprocessing
    mean, std = (settings.mean, settings.std) if settings else ((0.5,), (0.25,))
    images = (pixels / 255 - np.array(mean)) / np.array(std)
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2), np.float32)
