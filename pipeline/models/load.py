"""`load_model`: a timm model by name, with weights, ready for inference."""

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pipeline.data.preprocessing import Preprocessing
from pipeline.errors import UserError
from pipeline.models import torchvision_compat  # noqa: F401  (must precede timm)
from pipeline.models.checkpoint import Checkpoint, load_weights, read_checkpoint
from pipeline.models.preprocessing import resolve_preprocessing
from pipeline.models.random_weights import randomize_constants

# isort: split
import timm
from timm.models import get_pretrained_cfg, is_model, model_entrypoint


@dataclass(frozen=True)
class ModelSpec:
    """Which model, and where its weights come from: exactly one of the three sources.

    Attributes:
        name: timm's model name, optionally with a tag, e.g. `mobilevit_xxs`.
        checkpoint: file with weights.
        pretrained: fetch timm's weights.
        random_seed: fill the network with random weights from this seed (for tests).
        num_classes: None means the checkpoint's, or timm's.
        input_size: side of the square input in pixels; None, here and below, means the
            checkpoint's metadata, or else timm's configuration.
        mean: per colour channel, on pixels scaled to 0..1.
        std: likewise.
        interpolation: of the resize.
        crop_pct: side of the centre crop relative to the resized photo.
        resize: shorter, squash or none, see `Preprocessing`.
    """

    name: str
    checkpoint: Path | None = None
    pretrained: bool = False
    num_classes: int | None = None
    input_size: int | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    interpolation: str | None = None
    crop_pct: float | None = None
    resize: str | None = None
    random_seed: int | None = None


@dataclass(frozen=True)
class LoadedModel:
    """A network in evaluation mode and what it expects.

    Attributes:
        name: timm's model name.
        module: takes float32 `[N, 3, S, S]`, preprocessed, returns logits `[N, num_classes]`.
        preprocessing: of the photos.
        num_classes: number of logits.
        family: the timm source file that defines it, e.g. `mobilevit`.
        labels: class names from the checkpoint, in class order, or None.
    """

    name: str
    module: nn.Module
    preprocessing: Preprocessing
    num_classes: int
    family: str
    labels: tuple[str, ...] | None = None


def load_model(spec: ModelSpec) -> LoadedModel:
    """Builds the model that a specification describes.

    Raises:
        UserError: unknown name, no or several sources of weights, weights that do not fit or cannot
            be read, or an input size that the network does not accept.
    """
    _check_source(spec)
    base = spec.name.split(".")[0]
    config = get_pretrained_cfg(spec.name) if is_model(base) else None
    if config is None:
        raise UserError(f"Model {spec.name!r} is not in timm; {_suggestion(spec.name)}")
    checkpoint = read_checkpoint(spec.checkpoint) if spec.checkpoint is not None else None
    default_size = config.input_size[-1]
    preprocessing = resolve_preprocessing(
        vars(spec),
        checkpoint.settings if checkpoint else {},
        vars(config) | {"input_size": default_size},
    )
    num_classes = _num_classes(spec, checkpoint, config.classifier, config.num_classes)
    arguments: dict[str, Any] = {"num_classes": num_classes}
    if preprocessing.input_size != default_size:
        arguments["img_size"] = preprocessing.input_size
    module = _create(spec, arguments).eval().requires_grad_(False)
    if checkpoint is not None:
        load_weights(module, checkpoint, spec.name)
    _check_runs(module, spec.name, preprocessing.input_size, num_classes)
    return LoadedModel(
        spec.name,
        module,
        preprocessing,
        num_classes,
        family=model_entrypoint(base).__module__.split(".")[-1],
        labels=_labels(checkpoint, num_classes),
    )


def _check_source(spec: ModelSpec) -> None:
    sources = (spec.checkpoint is not None, spec.pretrained, spec.random_seed is not None)
    if sum(sources) == 0:
        raise UserError(
            f"No weights were given for {spec.name}; pass --checkpoint FILE or --pretrained."
        )
    if sum(sources) > 1:
        raise UserError(
            f"Several sources of weights were given for {spec.name}; choose one of a checkpoint, "
            "pretrained weights and random weights."
        )


def _suggestion(name: str) -> str:
    near = difflib.get_close_matches(name, timm.list_models(), n=3, cutoff=0.4)
    return f"did you mean {', '.join(near)}?" if near else "see timm.list_models()."


def _num_classes(
    spec: ModelSpec, checkpoint: Checkpoint | None, classifier: str | tuple[str, ...], default: int
) -> int:
    layers = (classifier,) if isinstance(classifier, str) else tuple(classifier or ())
    stored = checkpoint.num_classes(layers) if checkpoint else None
    if spec.num_classes is not None and stored is not None and spec.num_classes != stored:
        raise UserError(
            f"Checkpoint {spec.checkpoint} has {stored} classes but {spec.num_classes} were asked "
            "for; leave the number out or give the right checkpoint."
        )
    return spec.num_classes or stored or default


def _create(spec: ModelSpec, arguments: dict[str, Any]) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(spec.random_seed or 0)
        try:
            module = timm.create_model(spec.name, pretrained=spec.pretrained, **arguments)
        except TypeError as error:
            if "img_size" not in arguments or "img_size" not in str(error):
                raise
            # The family has no such argument: most of these take any size, the rest fail below.
            kept = {k: v for k, v in arguments.items() if k != "img_size"}
            return _create(spec, kept)
        except Exception as error:
            if not spec.pretrained and "img_size" not in arguments:
                raise
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            advice = (
                "download the weights yourself and pass --checkpoint FILE"
                if spec.pretrained
                else "choose another --input-size"
            )
            raise UserError(f"Model {spec.name} cannot be built ({reason}); {advice}.") from error
    if spec.random_seed is not None:
        randomize_constants(module, torch.Generator().manual_seed(spec.random_seed))
    return module


def _check_runs(module: nn.Module, name: str, size: int, num_classes: int) -> None:
    try:
        with torch.no_grad():
            logits = module(torch.zeros(1, 3, size, size))
    except (RuntimeError, AssertionError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"Model {name} does not accept {size}x{size} input ({reason}); "
            "choose another --input-size."
        ) from error
    if not isinstance(logits, torch.Tensor) or tuple(logits.shape) != (1, num_classes):
        raise UserError(f"Model {name} is not a classifier; choose an image classification model.")


def _labels(checkpoint: Checkpoint | None, num_classes: int) -> tuple[str, ...] | None:
    stored = checkpoint.settings.get("labels") if checkpoint else None
    if stored is None or checkpoint is None:
        return None
    if not isinstance(stored, list) or len(stored) != num_classes:
        raise UserError(
            f"Metadata labels of {checkpoint.path} must be a list of {num_classes} names; "
            "write one name per class."
        )
    return tuple(str(label) for label in stored)
