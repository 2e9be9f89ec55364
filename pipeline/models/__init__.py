"""Loading timm models with their weights and their preprocessing."""

from pipeline.data.preprocessing import Preprocessing
from pipeline.models import mobile_former  # noqa: F401  registers its models with timm
from pipeline.models.load import LoadedModel, ModelSpec, load_model

__all__ = ["LoadedModel", "ModelSpec", "Preprocessing", "load_model"]
