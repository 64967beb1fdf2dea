"""The reference's errors, computed once where draws are reused.

DPO needs of the reference two numbers per row: its errors on winner and loser. They depend on
(pair, draw, caption) alone, so with a bound on the draws all of them can be known before training.
A step then runs the policy only, and every expert, every β and every learning rate reads the same
numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from safetydpo_kedro.diffusion.model import DiffusionModel
from safetydpo_kedro.parameters import NoiseParameters
from safetydpo_kedro.preference.batches import Rows
from safetydpo_kedro.preference.inputs import make_inputs
from safetydpo_kedro.preference.latents import LatentPairs
from safetydpo_kedro.preference.loss import denoising_error
from safetydpo_kedro.progress import progress_bar


@dataclass(frozen=True)
class ReferenceScores:
    """Denoising errors of the reference on N pairs.

    Attributes:
        errors: float32 ``[N, D, 2, 2]``: pair, draw, caption (p_U, p_S), image (winner, loser).
            Where the draw drops the caption, both captions have the error without one.
    """

    errors: Tensor

    @property
    def draws(self) -> int:
        """D, the number of draws after which they repeat; 0 if nothing was computed."""
        return self.errors.shape[1]

    def rows(self, rows: Rows) -> Tensor:
        """Errors ``[B, 2]`` of some rows, on winner and loser."""
        return self.errors[rows.pairs, rows.draws, (~rows.unsafe).long()]

    def select(self, pairs: Tensor) -> ReferenceScores:
        """Of some of the pairs."""
        return ReferenceScores(self.errors[pairs])

    def without_draws(self) -> ReferenceScores:
        """Scores of the same pairs that know nothing."""
        return ReferenceScores(self.errors[:, :0])

    def to_tensors(self) -> dict[str, Tensor]:
        """The scores as named tensors, one row per pair."""
        return {"reference_errors": self.errors}

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor]) -> ReferenceScores:
        """The inverse of :meth:`to_tensors`."""
        return cls(tensors["reference_errors"])


@torch.no_grad()
def score_pairs(
    model: DiffusionModel,
    pairs: LatentPairs,
    noise: NoiseParameters,
    batch_size: int,
    progress: str | None = None,
) -> ReferenceScores:
    """Errors of the model as it is on all draws of some pairs, under both captions.

    Args:
        model: the reference, with no adapter on it.
        pairs: N of them.
        noise: without a bound on the draws nothing can be computed, and D is 0.
        batch_size: pairs per forward.
        progress: description of a progress bar; None shows none.
    """
    draws = noise.draws or 0
    # Both captions of a draw behind each other: their noise is the same.
    index = torch.tensor(
        list(product(range(len(pairs)), range(draws), (True, False))), dtype=torch.int64
    ).view(-1, 3)
    empty = model.unconditional().to("cpu")
    model.place_unet()
    scores = []
    starts = progress_bar(range(0, len(index), batch_size), desc=progress, disable=progress is None)
    for start in starts:
        pair, draw, unsafe = index[start : start + batch_size].T
        inputs = make_inputs(model, pairs, Rows(pair, unsafe.bool(), draw), noise, empty)
        prediction = model.predict(inputs.noisy, inputs.timesteps, inputs.captions)
        scores.append(denoising_error(prediction, inputs.target).view(2, -1).T.cpu())
    errors = torch.cat(scores) if scores else torch.empty(0)
    return ReferenceScores(errors.reshape(len(pairs), draws, 2, 2).contiguous())
