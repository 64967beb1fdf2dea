"""Nodes of ``export``: thin wrappers of ``diffusion`` and ``reporting``."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pandas as pd

from safetydpo_kedro.metrics.config import BootstrapConfig
from safetydpo_kedro.pipelines.evaluation.parameters import BenchmarksParameters
from safetydpo_kedro.pipelines.export.parameters import CardParameters

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

    from safetydpo_kedro.diffusion.lora import LoraAdapter
    from safetydpo_kedro.diffusion.model import DiffusionModel
else:  # Kedro resolves the annotations when it starts, which must not load torch
    DiffusionModel = DiffusionPipeline = LoraAdapter = object


def copy_lora(adapter: LoraAdapter, strength: float) -> LoraAdapter:
    """The adapter for diffusers; another strength than 1 is stated in the file's header."""
    scaled = adapter.scaled(strength)
    if strength == 1:
        return scaled
    return replace(scaled, metadata=adapter.metadata | {"export_strength": json.dumps(strength)})


def rename_for_kohya(adapter: LoraAdapter, strength: float) -> LoraAdapter:
    """The adapter for ComfyUI, A1111 and the like; the catalog entry writes their keys."""
    return adapter.scaled(strength)


def fuse_into_pipeline(
    model: DiffusionModel, adapter: LoraAdapter, strength: float
) -> DiffusionPipeline:
    """A whole pipeline that needs no LoRA: ``W + strength · ΔW``."""
    from safetydpo_kedro.diffusion.adapters import fuse

    fuse(model.unet, adapter, strength)
    return model.pipeline


def write_model_card(
    adapter: LoraAdapter,
    benchmark_table: pd.DataFrame,
    category_table: pd.DataFrame,
    variant_table: pd.DataFrame,
    judges: dict[str, Any],
    benchmarks: BenchmarksParameters,
    bootstrap: BootstrapConfig,
    card: CardParameters,
    strength: float,
    **experts: LoraAdapter,
) -> str:
    """The model card of the exported LoRA, with the results of the evaluation.

    Args:
        adapter: the merge as it was evaluated, at strength 1.
        benchmark_table: measures by variant and benchmark.
        category_table: IP by category.
        variant_table: hashes of what was evaluated.
        judges: names, versions and hashes of all that judged, and how images were drawn.
        benchmarks: which are harmful, and which benign.
        bootstrap: of the intervals.
        card: what the tables do not tell.
        strength: of the exported LoRA.
        experts: those that were merged, by name; others are left out.

    Raises:
        ValueError: the evaluation lacks the merge, or measured another one.
    """
    from safetydpo_kedro.merging.profile import expert_digest
    from safetydpo_kedro.reporting.model_card import CardContent, model_card

    merged = json.loads(adapter.metadata["merge_experts"])
    content = CardContent(
        name=card.name,
        variant="fitted_co_merge",
        license=card.license,
        base_model=card.base_model,
        weight_name="pytorch_lora_weights.safetensors",
        weights_sha256=expert_digest(adapter),
        adapter_metadata=adapter.metadata,
        benchmark_table=benchmark_table,
        category_table=category_table,
        variants=variant_table,
        harmful=benchmarks.harmful,
        benign=benchmarks.benign,
        sampling=judges["drawing"]["sampling"],
        confidence=bootstrap.confidence,
        provenance=judges | {"bootstrap": bootstrap.model_dump(mode="json")},
        expert_metadata={name: experts[name].metadata for name in merged if name in experts},
        strength=strength,
    )
    return model_card(content)
