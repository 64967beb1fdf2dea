"""Looks at a training on pairs that are held out of it: implicit accuracy, and some images."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from safetydpo_kedro.diffusion.model import DiffusionModel
from safetydpo_kedro.parameters import ExpertTrainingParameters, NoiseParameters
from safetydpo_kedro.preference.batches import CAPTIONS, Rows
from safetydpo_kedro.preference.data import HeldOut, TrainingData
from safetydpo_kedro.preference.noise import key
from safetydpo_kedro.preference.objective import Objective, Part
from safetydpo_kedro.preference.reference_scores import score_pairs

IMAGE_PIXELS = 256  # a look at real images need not show more


class Look(NamedTuple):
    """What held-out pairs say of the adapter as it is.

    Attributes:
        accuracy: implicit accuracy, the share of rows whose logit is positive, in [0, 1].
        loss: preference loss, mean over the rows.
    """

    accuracy: float
    loss: float


class Validation:
    """Held-out pairs under fixed draws, and held-out prompts under fixed seeds.

    Args:
        model: the reference, with no adapter on it yet.
        held_out: pairs and prompts.
        noise: its seed names the draws, which are others than those of training.
        parameters: of the run.
    """

    def __init__(
        self,
        model: DiffusionModel,
        held_out: HeldOut,
        noise: NoiseParameters,
        parameters: ExpertTrainingParameters,
    ) -> None:
        self.model = model
        self.held_out = held_out
        self.parameters = parameters.validation
        self.batch_size = parameters.micro_batch_size or parameters.batch_size
        fixed = NoiseParameters(
            seed=key(noise.seed, "held-out"), draws=self.parameters.draws, caption_dropout=0.0
        )
        scores = score_pairs(model, held_out.pairs, fixed, self.batch_size)
        plain = parameters.model_copy(
            update={
                "preservation": parameters.preservation.model_copy(update={"weight": 0.0}),
                "redirection_weight": 0.0,
            }
        )
        self.objective = Objective(model, TrainingData(held_out.pairs, scores=scores), fixed, plain)
        captions = torch.tensor(CAPTIONS[parameters.strategy])
        grid = torch.cartesian_prod(
            torch.arange(len(held_out.pairs)),
            torch.arange(self.parameters.draws),
            captions.long(),
        )
        self.rows = Rows(pairs=grid[:, 0], unsafe=grid[:, 2].bool(), draws=grid[:, 1])

    @torch.no_grad()
    def look(self) -> Look:
        """Implicit accuracy and preference loss of the adapter as it is."""
        right, losses = [], []
        for start in range(0, len(self.rows.pairs), self.batch_size):
            part = Rows(*(column[start : start + self.batch_size] for column in self.rows))
            inputs = self.objective.inputs(Part(0, part))
            assert inputs.scores is not None  # known of all draws since the constructor
            policy = self.model.predict(inputs.noisy, inputs.timesteps, inputs.captions)
            errors = self.objective.pair_errors(inputs, policy, inputs.scores)
            loss, inside = self.objective.preference(errors)
            right.append(inside > 0)
            losses.append(loss)
        return Look(float(torch.cat(right).float().mean()), float(torch.cat(losses).mean()))

    def draw(self) -> Tensor:
        """The held-out prompts as the model draws them now, uint8 ``[N, H, W, 3]``."""
        prompts, seeds = self.held_out.prompts, self.held_out.seeds
        if not prompts:
            return torch.empty(0, 1, 1, 3, dtype=torch.uint8)
        images = self.model.sample(prompts, seeds, self.parameters.sampling)
        return torch.from_numpy(np.stack([_small(image) for image in images]))


class BestAdapter:
    """Remembers the adapter of the best look, and says when to stop waiting for a better one.

    Args:
        weights: of the adapter in training.
        patience: looks without a better implicit accuracy before training stops.
    """

    def __init__(self, weights: list[nn.Parameter], patience: int) -> None:
        self.weights = weights
        self.patience = patience
        self.accuracy = -1.0
        self.waited = 0
        self.best: list[Tensor] = []

    @property
    def exhausted(self) -> bool:
        """Whether training should stop."""
        return self.waited >= self.patience

    def see(self, accuracy: float) -> None:
        """Note a look."""
        if accuracy > self.accuracy:
            self.accuracy, self.waited = accuracy, 0
            self.best = [weight.detach().clone() for weight in self.weights]
        else:
            self.waited += 1

    def put_back(self) -> None:
        """Give the adapter the weights of the best look, if there was one."""
        with torch.no_grad():
            for weight, best in zip(self.weights, self.best, strict=False):
                weight.copy_(best)

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"accuracy": self.accuracy, "waited": self.waited, "best": self.best}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """From a checkpoint."""
        self.accuracy, self.waited, self.best = state["accuracy"], state["waited"], state["best"]


def _small(image: np.ndarray) -> np.ndarray:
    """At most :data:`IMAGE_PIXELS` on a side."""
    small = Image.fromarray(image)
    small.thumbnail((IMAGE_PIXELS, IMAGE_PIXELS))
    return np.asarray(small)
