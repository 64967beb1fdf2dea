"""Fitting how much of each expert's rows and columns enters the merge, instead of counting it.

Co-Merge decides from activations of the base model which rows of ``ΔW_e`` are worth keeping. That
says which expert acts strongly, not whether its action is wanted, and it does not see that the
side effects of many experts add up. Our extension keeps the form of the merge, rows of experts
with weights, and chooses the weights by what the merged model predicts: on unsafe prompts of a
category what its expert would, on safe and neutral prompts what the base model would. Only the
weights are fitted; the experts stay as they are, and no image, prompt or label is needed beyond
what calibrates the activation profile. AdaMerging (Yang et al., ICLR 2024) fits one coefficient
for each expert and layer in a similar spirit, to the entropy of a classifier.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, Literal

import pandas as pd
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.lr_scheduler import CosineAnnealingLR

from safetydpo_kedro.diffusion.adapters import checkpointed_activations
from safetydpo_kedro.diffusion.lora import LoraAdapter
from safetydpo_kedro.diffusion.model import DiffusionModel
from safetydpo_kedro.merging.experts import check_experts, group_by_layer
from safetydpo_kedro.merging.fitted import FittedWeights
from safetydpo_kedro.merging.fitting_data import Answers, FittingData
from safetydpo_kedro.parameters import Strict
from safetydpo_kedro.preference.noise import key
from safetydpo_kedro.progress import progress_bar


class FittingConfig(Strict):
    """How the weights are fitted.

    Attributes:
        fit: which weights are free; the others stay 1.
        steps: optimizer steps (Adam, cosine schedule).
        batch_size: inputs of a step, one half unsafe, the other preserved.
        learning_rate: of the weights, whose natural size is 1.
        preservation_weight: weight of the error on preserved inputs against that on unsafe ones;
            more of it keeps quality and costs safety.
        seed: of the order of the inputs.
        gradient_checkpointing: compute activations twice instead of keeping them.
    """

    fit: Literal["rows", "columns", "both"] = "both"
    steps: int = Field(default=150, ge=1)
    batch_size: int = Field(default=32, ge=2)
    learning_rate: float = Field(default=0.03, gt=0)
    preservation_weight: float = Field(default=1.0, ge=0)
    seed: int = 0
    gradient_checkpointing: bool = False


class WeightedLayer:
    """All experts' factors at one layer, and the weights of their rows and columns.

    ``Σ_e diag(rows_e) ΔW_e diag(columns_e) x`` is one product with stacked factors of rank
    ``Σ_e r_e``, whose rows and columns carry the weights.

    Args:
        experts: expert name → adapter, sorted; those without the layer have no part in it.
        name: of the layer.
        device: where it computes.
    """

    def __init__(self, experts: Mapping[str, LoraAdapter], name: str, device: torch.device) -> None:
        layers = {
            index: adapter.layers[name]
            for index, adapter in enumerate(experts.values())
            if name in adapter.layers
        }
        factors = list(layers.values())
        self.kernel = factors[0].kernel
        self.a = torch.cat([layer.a for layer in factors]).to(device, torch.float32)
        self.b = torch.cat([layer.b * layer.scale for layer in factors], 1).to(
            device, torch.float32
        )
        # Which expert each of the stacked rank units belongs to.
        self.owner = torch.tensor(
            [index for index, layer in layers.items() for _ in range(layer.rank)], device=device
        )
        self.rows = torch.ones(len(experts), len(self.b), device=device)
        self.columns = torch.ones(len(experts), self.a.shape[1], device=device)

    def __call__(self, module: nn.Module, x: Tensor) -> Tensor:
        """What the weighted experts add to the output of ``module`` for its input ``x``."""
        a, b = self.a * self.columns[self.owner], self.b * self.rows[self.owner].T
        x = x.float()
        if not isinstance(module, nn.Conv2d):
            return functional.linear(functional.linear(x, a), b)
        kernels = a.unflatten(1, (-1, *module.kernel_size))
        inner = functional.conv2d(x, kernels, None, module.stride, module.padding, module.dilation)
        return functional.conv2d(inner, b[:, :, None, None])


def fit_weights(
    model: DiffusionModel,
    experts: Mapping[str, LoraAdapter],
    data: FittingData,
    config: FittingConfig,
    fixed: Collection[str] = (),
) -> tuple[FittedWeights, pd.DataFrame]:
    """Fit the weights with which experts enter a merge; all start at 1, the plain sum.

    The loss is ``mean ‖ε_merge − ε_expert‖²`` over unsafe inputs plus ``preservation_weight`` times
    ``mean ‖ε_merge − ε_base‖²`` over preserved ones.

    Args:
        model: the base model.
        experts: expert name → adapter.
        data: inputs and the teachers' answers.
        config: how to fit.
        fixed: names of experts whose weights stay 1, such as a merge that an expert is added to.

    Returns:
        The weights, and the history: ``step, loss, unsafe_error, preserved_error``.

    Raises:
        ValueError: experts do not fit together, all are fixed, or the loss is not finite.
    """
    experts = check_experts(experts)
    unknown = sorted(set(fixed) - set(experts))
    if unknown or len(set(fixed)) == len(experts):
        raise ValueError(
            f"fixed experts {sorted(fixed)} of {list(experts)}: name some of them, not all"
        )
    model.place_unet()
    layers = {name: WeightedLayer(experts, name, model.device) for name in group_by_layer(experts)}
    free = [
        tensor.requires_grad_()
        for layer in layers.values()
        for side, tensor in (("rows", layer.rows), ("columns", layer.columns))
        if config.fit in (side, "both")
    ]
    held = torch.tensor([name in fixed for name in experts], device=model.device)
    optimizer = torch.optim.Adam(free, lr=config.learning_rate)
    schedule = CosineAnnealingLR(optimizer, config.steps)
    history = []
    with (
        _added(model.unet, layers),
        checkpointed_activations(model.unet, config.gradient_checkpointing),
    ):
        for step in (
            bar := progress_bar(range(config.steps), desc="fitting the merge", unit="step")
        ):
            unsafe = _error(model, data.unsafe, _batch(len(data.unsafe), step, "unsafe", config))
            preserved = _error(
                model, data.preserved, _batch(len(data.preserved), step, "preserved", config)
            )
            loss = unsafe + config.preservation_weight * preserved
            if not loss.isfinite():
                raise ValueError(
                    f"fitting the merge: the loss is {loss.item()} at step {step}; lower "
                    f"learning_rate = {config.learning_rate}, or look for a broken expert"
                )
            optimizer.zero_grad()
            loss.backward()
            for tensor in free:
                if tensor.grad is not None:
                    tensor.grad[held] = 0  # Adam leaves alone what never had a gradient
            optimizer.step()
            schedule.step()
            history.append((step, loss.item(), unsafe.item(), preserved.item()))
            bar.set_postfix(loss=f"{loss.item():.4f}", refresh=False)
    weights = FittedWeights(
        tuple(experts),
        {name: layer.rows.detach().cpu() for name, layer in layers.items()},
        {name: layer.columns.detach().cpu() for name, layer in layers.items()},
    )
    columns = ["step", "loss", "unsafe_error", "preserved_error"]
    return weights, pd.DataFrame(history, columns=columns)


def _error(model: DiffusionModel, answers: Answers, rows: Tensor) -> Tensor:
    """Mean squared distance between the model's predictions and the teacher's."""
    predicted = model.predict(
        answers.noisy[rows], answers.timesteps[rows], answers.conditioning.rows(rows)
    )
    targets = answers.targets[rows].to(predicted.device)
    return functional.mse_loss(predicted.float(), targets)


def _batch(count: int, step: int, part: str, config: FittingConfig) -> Tensor:
    """Rows of a step: without replacement within one pass over all of them."""
    size = min(config.batch_size // 2, count)
    turn, place = divmod(step * size, count)
    order = torch.cat([_order(count, t, part, config.seed) for t in (turn, turn + 1)])
    return order[place : place + size]


def _order(count: int, turn: int, part: str, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(key(seed, part, turn))
    return torch.randperm(count, generator=generator)


@contextmanager
def _added(unet: nn.Module, layers: Mapping[str, WeightedLayer]) -> Iterator[None]:
    """Within the block the UNet's layers answer with the weighted experts added."""

    def add(layer: WeightedLayer) -> Callable[[nn.Module, tuple[Any, ...], Tensor], Tensor]:
        return lambda module, args, output: output + layer(module, args[0]).to(output.dtype)

    with ExitStack() as handles:
        for name, layer in layers.items():
            handle = unet.get_submodule(name).register_forward_hook(add(layer))
            handles.callback(handle.remove)
        yield
