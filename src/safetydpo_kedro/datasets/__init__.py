"""Kedro datasets of this project, and the freshness of every artifact.

Nothing here imports torch before data is loaded or saved, so that Kedro starts quickly.
"""

from safetydpo_kedro.datasets.chat_model import ChatModelDataset
from safetydpo_kedro.datasets.clip_model import ClipModelDataset
from safetydpo_kedro.datasets.diffusion_pipeline import DiffusionPipelineDataset
from safetydpo_kedro.datasets.external_models import ExternalModelsDataset
from safetydpo_kedro.datasets.image_classifier import ImageClassifierDataset
from safetydpo_kedro.datasets.image_folder import ImageFolderDataset
from safetydpo_kedro.datasets.inception import InceptionDataset
from safetydpo_kedro.datasets.lora_adapter import LoraAdapterDataset
from safetydpo_kedro.datasets.optional import LocalPathDataset, OptionalDataset
from safetydpo_kedro.datasets.sharded import ShardedDataset
from safetydpo_kedro.datasets.sharded_parquet import ShardedImagesDataset, ShardedParquetDataset
from safetydpo_kedro.datasets.sharded_tensors import ShardedSafetensorsDataset
from safetydpo_kedro.datasets.tensors import SafetensorsDataset

__all__ = [
    "ChatModelDataset",
    "ClipModelDataset",
    "DiffusionPipelineDataset",
    "ExternalModelsDataset",
    "ImageClassifierDataset",
    "ImageFolderDataset",
    "InceptionDataset",
    "LocalPathDataset",
    "LoraAdapterDataset",
    "OptionalDataset",
    "SafetensorsDataset",
    "ShardedDataset",
    "ShardedImagesDataset",
    "ShardedParquetDataset",
    "ShardedSafetensorsDataset",
]
