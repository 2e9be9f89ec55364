"""How a photo becomes the square of pixels that a model was trained on."""

from dataclasses import asdict, dataclass
from math import floor
from typing import Any

from pipeline.errors import UserError

INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos")
RESIZES = ("shorter", "squash", "none")


@dataclass(frozen=True)
class Preprocessing:
    """Preprocessing of one model.

    `mean` and `std` act on pixels in [0, 1]; they are folded into the network, so that
    `pipeline.data.preprocess.to_pixels` uses only the other fields. With `resize`

    * "shorter" the shorter side becomes floor(input_size / crop_pct), the aspect ratio stays;
    * "squash" both sides become floor(input_size / crop_pct), the aspect ratio is lost;
    * "none" nothing is resized and `crop_pct` is ignored;

    then the central input_size x input_size pixels are cut out.

    Attributes:
        input_size: side of the network's square input, in pixels.
        mean: per-channel (RGB) mean that the model subtracts.
        std: per-channel (RGB) standard deviation that the model divides by.
        interpolation: resampling filter, with antialias: nearest, bilinear, bicubic or lanczos.
        crop_pct: share of the resized side that the crop keeps, in (0, 1].
        resize: shorter, squash or none, see above.

    Raises:
        UserError: a field is outside its range.
    """

    input_size: int
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    interpolation: str = "bilinear"
    crop_pct: float = 1.0
    resize: str = "shorter"

    def __post_init__(self) -> None:
        """Refuse values that no photo could be prepared with."""
        for name in ("mean", "std"):
            object.__setattr__(self, name, tuple(float(value) for value in getattr(self, name)))
        checks = {
            "input_size": (self.input_size > 0, "positive"),
            "mean": (len(self.mean) == 3, "three numbers"),
            "std": (len(self.std) == 3 and min(self.std) > 0, "three positive numbers"),
            "interpolation": (self.interpolation in INTERPOLATIONS, " or ".join(INTERPOLATIONS)),
            "crop_pct": (0 < self.crop_pct <= 1, "in (0, 1]"),
            "resize": (self.resize in RESIZES, " or ".join(RESIZES)),
        }
        for name, (holds, expected) in checks.items():
            if not holds:
                value = getattr(self, name)
                raise UserError(f"The preprocessing's {name} is {value!r}; it must be {expected}.")

    @property
    def resized_side(self) -> int:
        """Side in pixels that a photo is resized to before the crop."""
        return floor(self.input_size / self.crop_pct)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON values, the tuples as lists."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
        }
