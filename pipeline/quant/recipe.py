"""Recipes: what is quantized to how many bits, and how ranges are found. One TOML file each.

The models below are the only definition of the keys; an unknown key is an error.
"""

import difflib
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pipeline.errors import UserError
from pipeline.quant.allocate.settings import Mixed, mean_bits
from pipeline.quant.mlp.settings import PRESETS as MLP_PRESETS
from pipeline.quant.mlp.settings import MlpReconstruct
from pipeline.quant.reconstruct.settings import PRESETS, Reconstruct
from pipeline.quant.roles import Role
from pipeline.quant.search.settings import Search

FOLDER = Path(__file__).parent / "recipes"

Wide = Literal[8, 16]
Bits = Annotated[int, Field(ge=2, le=8)]
ObserverName = Literal["minmax", "percentile", "mse"]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Weights(_Section):
    """Weights.

    Attributes:
        bits: width of a code.
        symmetric: zero point 0. With 8 bits it always is; with fewer any zero point is free.
        per_channel: one scale per output channel instead of one per tensor.
        observer: how the clipping range is found, a name of `pipeline.quant.weights`.
        stem_bits: width for convolutions that read the image; the same as `bits` when absent.
        head_bits: likewise for the linear that produces the logits.
        rounding: to the nearest code, or so that errors of one input compensate those of others.
    """

    bits: Bits = 8
    rounding: Literal["nearest", "compensated"] = "nearest"
    symmetric: bool = True
    per_channel: bool = True
    observer: Literal["minmax", "mse"] = "mse"
    stem_bits: Bits | None = None
    head_bits: Bits | None = None


class Activations(_Section):
    """Activations that products read, and others of 8 bits.

    Attributes:
        bits: width of a code where a product reads the tensor, in int8 storage.
        symmetric: zero point 0; operands of attention are symmetric at 8 bits in any case.
        per_head: q, k and v have one scale per head instead of one per tensor.
        observer: how the range is found, a name of `pipeline.quant.observers`.
        order: observers look at the float network's tensors (`parallel`), or unit by unit at those
            of the quantized network so far (`sequential`).
        roles: other observers for some roles.
        percentile: share of values inside the range, in percent, for observer "percentile".
        head_bits: width for what the linear that produces the logits reads; the same as `bits`
            when absent.
    """

    bits: Bits = 8
    symmetric: bool = False
    per_head: bool = False
    observer: ObserverName = "mse"
    order: Literal["parallel", "sequential"] = "parallel"
    roles: dict[Annotated[Role, Field(strict=False)], ObserverName] = {}
    percentile: float = Field(default=99.99, gt=50, le=100)
    head_bits: Bits | None = None


class _Logarithmic(_Section):
    q: int = Field(default=0, ge=0, le=137)

    @property
    def fixed_q(self) -> int | None:
        """The base's exponent numerator; None (`q = 0`): search it on the calibration photos."""
        return self.q or None


class Softmax(_Logarithmic):
    """Attention weights: int16 (15 bits), int8, or codes with the bits of the activations.

    Softmax outside plain attention (over pixels, beside talking heads) always has 15 bits.

    Attributes:
        format: as above.
        bits: width of a code in place of that of the activations.
    """

    bits: Bits | None = None
    format: Literal["int16", "int8", "uniform", "log2", "log-sqrt2", "adalog", "twin"] = "int16"


class PostGelu(_Logarithmic):
    """GELU outputs that only one linear reads: uniform, AdaLog codes with a shift, or twin."""

    format: Literal["uniform", "adalog", "twin"] = "uniform"


class Factors(_Section):
    """Which factors per channel are tried.

    Attributes:
        statistics: how the width of a channel is measured: by its range or its deviation; where
            both are given, the error of the products decides.
        exponents: factors are powers of the width with one of these exponents; where there are
            several, the error of the products decides.
    """

    statistics: Annotated[
        tuple[Literal["range", "deviation"], ...], Field(strict=False, min_length=1)
    ] = ("range",)
    exponents: Annotated[tuple[float, ...], Field(strict=False, min_length=1)] = (1.0,)


class Equalize(Factors):
    """Factors per channel in front of products, exact in the float network.

    Attributes:
        tensors: outputs of normalizations only, or all tensors where the compiler can do it.
        others: what is tried for tensors that no normalization gives; the same when absent.
        shift: channels of normalizations are centred as well.
        learn: steps in which the best of these factors are trained further; 0 for none.
    """

    tensors: Literal["norms", "all"] = "norms"
    others: Factors | None = None
    shift: bool = True
    learn: int = Field(default=0, ge=0)


class Residual(_Section):
    """The residual stream where it is stored in 8 bits.

    Attributes:
        power_of_two: channels are stored behind factors 1, 1/2, 1/4 or 1/8 of their own.
    """

    power_of_two: bool = False


class Recipe(_Section):
    """A whole recipe.

    Attributes:
        name: short name, the file's stem for those that are bundled.
        description: one line for listings.
        calibration_images: photos needed; only what is trained uses more.
        preact_bits: inputs of SiLU, GELU, hardswish, sigmoid.
        residual_bits: the residual stream.
        branch_bits: what blocks add to the residual stream.
        token_bits: inputs of linear layers over a few tokens, at most 512 wide (Mobile-Former).
        logits_bits: softmax inputs that are stored (others stay int32).
        paper: formats exactly as published, where those cannot be stored in their bits or lowered
            to integers: for comparisons, simulation only.
        weights: see `Weights`.
        activations: see `Activations`.
        softmax: see `Softmax`.
        post_gelu: see `PostGelu`.
        residual: see `Residual`.
        equalize: channels that are brought to comparable ranges first; none when absent.
        mlp: how MLPs are trained to do with ReLU, before anything else; not at all when absent.
        reconstruct: how units are trained; not at all when absent.
        below_8_bits: sections that take the place of these where products read fewer than 8 bits.
        bias_correction: biases make up for the mean error of their products.
        search: how parameters of products are searched; observers alone decide when absent.
        mixed: products get bits of their own; all have those of the recipe when absent.
    """

    name: str
    description: str = ""
    calibration_images: int = Field(default=32, ge=1)
    preact_bits: Wide = 16
    residual_bits: Wide = 16
    branch_bits: Wide = 16
    token_bits: Wide = 16
    logits_bits: Wide = 16
    paper: bool = False
    weights: Weights = Weights()
    activations: Activations = Activations()
    softmax: Softmax = Softmax()
    post_gelu: PostGelu = PostGelu()
    residual: Residual = Residual()
    equalize: Equalize | None = None
    search: Search | None = None
    bias_correction: bool = False
    below_8_bits: dict[str, Any] = {}
    mlp: MlpReconstruct | None = None
    reconstruct: Reconstruct | None = None
    mixed: Mixed | None = None

    @model_validator(mode="after")
    def _can_be_mixed(self) -> "Recipe":
        if self.mixed is None or self.mixed.size_mb is not None:
            return self
        if self.mixed.average is None and self.weights.bits != self.activations.bits:
            raise ValueError(
                "mixed precision gives weights and activations the same bits; give both the same, "
                "or mixed.average"
            )
        average = self.mixed.average_of(self.weights.bits)
        widths = self.mixed.widths(self.weights.bits)
        if average < mean_bits(widths[0]):
            raise ValueError(
                f"mixed.choices has nothing below {widths[0]} bits, for an average of {average}"
            )
        return self

    @property
    def most_images(self) -> int:
        """Photos that are used where there are enough: calibration alone needs all of its own."""
        trained = [part.images for part in (self.mlp, self.reconstruct) if part is not None]
        return max(self.calibration_images, *trained, 1)

    @property
    def is_sequential(self) -> bool:
        """Whether units are quantized one after the other, each on what those before it say."""
        of_search = self.search is not None and self.search.order == "sequential"
        return of_search or self.activations.order == "sequential"


def recipe_names() -> list[str]:
    """Names of the bundled recipes, sorted."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


_VARIANT = re.compile(
    r"(?P<recipe>.+?)(:w(?P<weights>\d+)a(?P<activations>\d+))?(:(?P<preset>paper|quick))?",
    re.IGNORECASE,
)


def load_recipe(name_or_path: str | Path) -> Recipe:
    """A bundled recipe by its name, or any by the path of its TOML file, or a variant of it.

    Args:
        name_or_path: such as `pocket` or `mine.toml`; with bits for weights and activations,
            `pocket:w4a4`; with another preset for what is trained, `aphq:quick`; with both,
            `aphq:w4a4:quick`.

    Raises:
        UserError: there is no such recipe, or its content is wrong.
    """
    found = _VARIANT.fullmatch(str(name_or_path))
    if found is None or not (found["weights"] or found["preset"]):
        return _load(name_or_path)
    inner = _VARIANT.fullmatch(found["recipe"])  # which may name a preset in front of the bits
    if inner is not None and any(inner[p] and found[p] for p in ("weights", "preset")):
        raise UserError(
            f"Recipe {name_or_path} names its bits or its preset twice; name each once."
        )
    recipe = load_recipe(found["recipe"])
    if found["weights"]:
        recipe = at_bits(recipe, int(found["weights"]), int(found["activations"]))
    return with_preset(recipe, found["preset"].lower()) if found["preset"] else recipe


def at_bits(recipe: Recipe, weights: int, activations: int) -> Recipe:
    """The recipe with other bits for the operands of products; its name says so.

    With mixed precision they are the average.

    Raises:
        UserError: a number of bits is not allowed.
    """
    content = recipe.model_dump()
    content["name"] = f"{recipe.name}:w{weights}a{activations}"
    content["weights"]["bits"] = weights
    content["activations"]["bits"] = activations
    if content["mixed"] is not None:
        content["mixed"] |= {"average": None, "size_mb": None}
    return parse_recipe(content, content["name"])


def with_preset(recipe: Recipe, preset: str) -> Recipe:
    """The recipe with a preset's budget for what is trained; its name says so.

    Raises:
        UserError: nothing is trained by this recipe.
    """
    content = recipe.model_dump()
    content["name"] = f"{recipe.name}:{preset}"
    sections = {"reconstruct": PRESETS, "mlp": MLP_PRESETS}
    trained = {name: presets for name, presets in sections.items() if content[name] is not None}
    if not trained:
        raise UserError(
            f"Recipe {recipe.name} trains nothing, so it has no preset '{preset}'; "
            f"leave ':{preset}' away or take a recipe with [reconstruct]."
        )
    for name, presets in trained.items():
        budget = {"preset", *(key for values in presets.values() for key in values)}
        kept = {key: value for key, value in content[name].items() if key not in budget}
        content[name] = kept | {"preset": preset}
    return parse_recipe(content, content["name"])


def _load(name_or_path: str | Path) -> Recipe:
    bundled = FOLDER / f"{name_or_path}.toml"
    path = bundled if bundled.is_file() else Path(name_or_path)
    if path.is_file():
        return _read(path)
    names = recipe_names()
    close = difflib.get_close_matches(str(name_or_path), names, n=2, cutoff=0.4)
    hint = f"did you mean {' or '.join(close)}?" if close else "give one of these or a TOML file."
    raise UserError(f"There is no recipe '{name_or_path}' (bundled: {', '.join(names)}); {hint}")


def _read(path: Path) -> Recipe:
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"Recipe {path} is not valid TOML: {error}; correct that line.") from None
    return parse_recipe({"name": path.stem, **content}, str(path))


def parse_recipe(content: dict[str, Any], where: str) -> Recipe:
    """A recipe from plain data.

    Args:
        content: as in the TOML file.
        where: file name for messages.

    Raises:
        UserError: a key is unknown or a value is not allowed.
    """
    try:
        return Recipe.model_validate(_at_its_bits(content))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        if first["type"] == "value_error":  # of values that do not go together
            raise UserError(f"Recipe {where}: {first['ctx']['error']}.") from None
        if first["type"] == "extra_forbidden":
            raise UserError(
                f"Recipe {where} has an unknown key '{key}'; {_allowed_keys(first['loc'])}"
            ) from None
        raise UserError(
            f"Recipe {where}: {key} = {first['input']!r} is not allowed; "
            f"{first['msg'][0].lower()}{first['msg'][1:]}."
        ) from None


def _at_its_bits(content: dict[str, Any]) -> dict[str, Any]:
    """The content with what it wants below 8 bits, if that is what it has."""
    few = content.get("below_8_bits", {})
    bits = content.get("activations", {}).get("bits", 8)
    if not isinstance(few, dict) or not isinstance(bits, int) or bits >= 8:
        return content
    merged = {name: {**(content.get(name) or {}), **section} for name, section in few.items()}
    return {**content, **merged}


def _allowed_keys(location: tuple[int | str, ...]) -> str:
    model: type[BaseModel] = Recipe
    for part in location[:-1]:
        section = model.model_fields[str(part)].annotation
        if isinstance(section, type) and issubclass(section, BaseModel):
            model = section
    keys = list(model.model_fields)
    close = difflib.get_close_matches(str(location[-1]), keys, n=1)
    hint = f"did you mean '{close[0]}'?" if close else "remove it."
    return f"{hint} Allowed here: {', '.join(keys)}."
