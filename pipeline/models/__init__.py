"""Loading timm models with their weights and their preprocessing."""

from pipeline.data.preprocessing import Preprocessing
from pipeline.models.load import LoadedModel, ModelSpec, load_model

__all__ = ["LoadedModel", "ModelSpec", "Preprocessing", "load_model"]
