"""Optimizers of expert training by name."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn
from torch.optim import AdamW, Optimizer

from safetydpo_kedro.parameters import ExpertTrainingParameters


def learning_rate(parameters: ExpertTrainingParameters) -> float:
    """The rate after warmup; the reference recipe for SD 1.5 multiplies it by the batch size."""
    scale = parameters.batch_size if parameters.scale_learning_rate else 1
    return parameters.learning_rate * scale


def make_optimizer(
    weights: Sequence[nn.Parameter], parameters: ExpertTrainingParameters
) -> Optimizer:
    """Optimizer of the adapter's weights.

    ``adafactor`` runs with a given rate instead of its own schedule, as the reference recipe for
    SDXL does.

    Raises:
        ValueError: ``adamw_8bit`` without the package bitsandbytes.
    """
    lr, decay = learning_rate(parameters), parameters.weight_decay
    if parameters.optimizer == "adamw":
        return AdamW(weights, lr=lr, weight_decay=decay)
    optimizer: Optimizer
    if parameters.optimizer == "adafactor":
        from transformers.optimization import Adafactor

        optimizer = Adafactor(
            weights, lr=lr, weight_decay=decay, scale_parameter=False, relative_step=False
        )
        return optimizer
    try:
        from bitsandbytes.optim import AdamW8bit
    except ImportError as error:
        raise ValueError(
            "expert_training.optimizer is 'adamw_8bit', which needs bitsandbytes: "
            "pip install 'safetydpo_kedro[gpu]', or choose 'adamw' or 'adafactor'"
        ) from error
    optimizer = AdamW8bit(weights, lr=lr, weight_decay=decay)
    return optimizer
