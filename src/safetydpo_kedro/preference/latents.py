"""The latent cache: posteriors and prompt embeddings, computed once and used at every step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from safetydpo_kedro.diffusion.model import DiffusionModel


@dataclass(frozen=True)
class LatentImages:
    """Posteriors of N images.

    Attributes:
        mean: ``[N, C, h, w]`` in the UNet's latent scale.
        std: ``[N, C, h, w]``.
    """

    mean: Tensor
    std: Tensor

    def sample(self, rows: Tensor, noise: Tensor) -> Tensor:
        """Latents ``[B, C, h, w]`` of some rows, drawn with standard normal ``noise``."""
        return self.mean[rows] + self.std[rows] * noise


@dataclass(frozen=True)
class LatentPairs:
    """Everything that training needs of N pairs.

    Attributes:
        winners: posteriors of x_S.
        losers: posteriors of x_U.
        unsafe: embeddings of p_U, ``[N, tokens, width]``.
        safe: embeddings of p_S, ``[N, tokens, width]``.
        ids: int64 ``[N]``, the pairs' identities in the data set (keys of their noise).
    """

    winners: LatentImages
    losers: LatentImages
    unsafe: Tensor
    safe: Tensor
    ids: Tensor

    def __len__(self) -> int:
        return len(self.ids)

    def select(self, rows: Tensor) -> LatentPairs:
        """Some of the pairs, under their old identities."""
        tensors = self.to_tensors()
        return LatentPairs.from_tensors({name: value[rows] for name, value in tensors.items()})

    def to_tensors(self) -> dict[str, Tensor]:
        """The cache as named tensors, one row per pair."""
        return {
            "winner_mean": self.winners.mean,
            "winner_std": self.winners.std,
            "loser_mean": self.losers.mean,
            "loser_std": self.losers.std,
            "unsafe_embedding": self.unsafe,
            "safe_embedding": self.safe,
            "pair_index": self.ids,
        }

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor]) -> LatentPairs:
        """The inverse of :meth:`to_tensors`."""
        return cls(
            winners=LatentImages(tensors["winner_mean"], tensors["winner_std"]),
            losers=LatentImages(tensors["loser_mean"], tensors["loser_std"]),
            unsafe=tensors["unsafe_embedding"],
            safe=tensors["safe_embedding"],
            ids=tensors["pair_index"],
        )


@dataclass(frozen=True)
class PreservedImages:
    """Images and prompts that an expert must leave alone.

    Attributes:
        images: posteriors of M images.
        embeddings: of the prompts that drew them, ``[M, tokens, width]``.
    """

    images: LatentImages
    embeddings: Tensor

    def __len__(self) -> int:
        return len(self.embeddings)

    def to_tensors(self) -> dict[str, Tensor]:
        """The set as named tensors, one row per image."""
        return {
            "mean": self.images.mean,
            "std": self.images.std,
            "embedding": self.embeddings,
        }

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor]) -> PreservedImages:
        """The inverse of :meth:`to_tensors`."""
        return cls(LatentImages(tensors["mean"], tensors["std"]), tensors["embedding"])

    @classmethod
    def join(cls, *sets: PreservedImages) -> PreservedImages:
        """Several sets behind each other."""
        parts = [s.to_tensors() for s in sets]
        return cls.from_tensors({k: torch.cat([p[k] for p in parts]) for k in parts[0]})


def encode_pairs(
    model: DiffusionModel,
    winners: np.ndarray,
    losers: np.ndarray,
    unsafe_prompts: Sequence[str],
    safe_prompts: Sequence[str],
    ids: Sequence[int],
) -> LatentPairs:
    """Cache some pairs.

    Args:
        model: the model that is to be aligned.
        winners: x_S, uint8 ``[N, H, W, 3]``.
        losers: x_U, uint8 ``[N, H, W, 3]``.
        unsafe_prompts: p_U.
        safe_prompts: p_S.
        ids: identities of the pairs.
    """
    return LatentPairs(
        winners=_posteriors(model, winners),
        losers=_posteriors(model, losers),
        unsafe=model.encode_prompts(unsafe_prompts).cpu(),
        safe=model.encode_prompts(safe_prompts).cpu(),
        ids=torch.as_tensor(ids, dtype=torch.int64),
    )


def encode_preserved(
    model: DiffusionModel, images: np.ndarray, prompts: Sequence[str]
) -> PreservedImages:
    """Cache images (uint8 ``[M, H, W, 3]``) that belong to harmless prompts."""
    return PreservedImages(_posteriors(model, images), model.encode_prompts(prompts).cpu())


def _posteriors(model: DiffusionModel, images: np.ndarray) -> LatentImages:
    mean, std = model.encode_images(images)
    return LatentImages(mean.cpu(), std.cpu())
