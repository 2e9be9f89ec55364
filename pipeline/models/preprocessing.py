"""Where each setting of a model's preprocessing comes from."""

import json
from collections.abc import Mapping
from typing import Any

from pipeline.data.preprocessing import Preprocessing
from pipeline.errors import UserError

METADATA_PREFIX = "pocketvit."
_KEYS = ("input_size", "mean", "std", "interpolation", "crop_pct", "resize")
_DEFAULTS = {"resize": "shorter"}  # what timm does unless told otherwise


def parse_metadata(metadata: Mapping[str, str], where: str) -> dict[str, Any]:
    """The `pocketvit.*` entries of a safetensors header, JSON-decoded, without the prefix.

    Known keys are `input_size`, `mean`, `std`, `interpolation`, `crop_pct`, `resize` and `labels`.

    Raises:
        UserError: a value is not JSON.
    """
    found: dict[str, Any] = {}
    for key, text in metadata.items():
        if key.startswith(METADATA_PREFIX):
            try:
                found[key.removeprefix(METADATA_PREFIX)] = json.loads(text)
            except json.JSONDecodeError as error:
                raise UserError(
                    f"Metadata {key} of {where} is not JSON ({text!r}); write it as a JSON value."
                ) from error
    return found


def resolve_preprocessing(*sources: Mapping[str, Any]) -> Preprocessing:
    """Takes each setting from the first source that has it (not None).

    Args:
        sources: most important first, e.g. the user's, the checkpoint's, timm's.

    Raises:
        UserError: a setting is missing or has the wrong form.
    """
    chosen: dict[str, Any] = {}
    for key in _KEYS:
        values = [source[key] for source in (*sources, _DEFAULTS) if source.get(key) is not None]
        if not values:
            raise UserError(f"No {key} is known for this model; give it explicitly.")
        chosen[key] = values[0]
    try:
        mean, std = (tuple(float(v) for v in chosen[key]) for key in ("mean", "std"))
        return Preprocessing(
            input_size=int(chosen["input_size"]),
            mean=mean,  # type: ignore[arg-type]  # the length is checked by the class
            std=std,  # type: ignore[arg-type]
            interpolation=str(chosen["interpolation"]),
            crop_pct=float(chosen["crop_pct"]),
            resize=str(chosen["resize"]),
        )
    except (TypeError, ValueError) as error:
        raise UserError(f"Preprocessing {chosen} is malformed ({error}); correct it.") from error
