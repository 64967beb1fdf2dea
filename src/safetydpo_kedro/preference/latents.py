"""The latent cache: posteriors and prompt embeddings, computed once and used at every step."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from safetydpo_kedro.diffusion.conditioning import Conditioning
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

    The tensors may be :class:`~safetydpo_kedro.stacked.StackedRows`, of which :meth:`select` and
    the two sides read only the rows in question.

    Attributes:
        winners: posteriors of x_S.
        losers: posteriors of x_U.
        unsafe: conditioning of p_U, N rows.
        safe: conditioning of p_S, N rows.
        ids: int64 ``[N]``, the pairs' identities in the data set (keys of their noise).
    """

    winners: LatentImages
    losers: LatentImages
    unsafe: Conditioning
    safe: Conditioning
    ids: Tensor

    def __len__(self) -> int:
        return len(self.ids)

    def select(self, rows: Tensor | slice) -> LatentPairs:
        """Some of the pairs, under their old identities."""
        tensors = self.to_tensors()
        return LatentPairs.from_tensors({name: value[rows] for name, value in tensors.items()})

    def recaptioned(self, rows: Tensor, unsafe: Conditioning, ids: Tensor) -> LatentPairs:
        """Some of the pairs under other unsafe prompts, as pairs of their own.

        Args:
            rows: int64 ``[M]``; a row may come more than once.
            unsafe: conditioning of the other prompts, M rows.
            ids: int64 ``[M]``, their identities.
        """
        return replace(self.select(rows), unsafe=unsafe, ids=ids)

    @classmethod
    def join(cls, *parts: LatentPairs) -> LatentPairs:
        """Several sets of pairs behind each other."""
        tensors = [part.to_tensors() for part in parts]
        return cls.from_tensors({k: torch.cat([t[k][:] for t in tensors]) for k in tensors[0]})

    def safe_side(self, rows: Tensor) -> PreservedImages:
        """Images of p_S of some of the pairs."""
        images = LatentImages(self.winners.mean[rows], self.winners.std[rows])
        return PreservedImages(images, self.safe.rows(rows))

    def unsafe_side(self, rows: Tensor) -> PreservedImages:
        """Images of p_U of some of the pairs."""
        images = LatentImages(self.losers.mean[rows], self.losers.std[rows])
        return PreservedImages(images, self.unsafe.rows(rows))

    def to_tensors(self) -> dict[str, Tensor]:
        """The cache as named tensors, one row per pair."""
        return {
            "winner_mean": self.winners.mean,
            "winner_std": self.winners.std,
            "loser_mean": self.losers.mean,
            "loser_std": self.losers.std,
            **self.unsafe.to_tensors("unsafe_"),
            **self.safe.to_tensors("safe_"),
            "pair_index": self.ids,
        }

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor]) -> LatentPairs:
        """The inverse of :meth:`to_tensors`."""
        return cls(
            winners=LatentImages(tensors["winner_mean"], tensors["winner_std"]),
            losers=LatentImages(tensors["loser_mean"], tensors["loser_std"]),
            unsafe=Conditioning.from_tensors(tensors, "unsafe_"),
            safe=Conditioning.from_tensors(tensors, "safe_"),
            ids=tensors["pair_index"][:],  # these are needed at once, mapped or not
        )


@dataclass(frozen=True)
class PreservedImages:
    """Images and prompts that an expert must leave alone.

    Attributes:
        images: posteriors of M images.
        conditioning: of the prompts that drew them, M rows.
    """

    images: LatentImages
    conditioning: Conditioning

    def __len__(self) -> int:
        return len(self.conditioning)

    def to_tensors(self) -> dict[str, Tensor]:
        """The set as named tensors, one row per image."""
        return {
            "mean": self.images.mean,
            "std": self.images.std,
            **self.conditioning.to_tensors("prompt_"),
        }

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor]) -> PreservedImages:
        """The inverse of :meth:`to_tensors`."""
        images = LatentImages(tensors["mean"], tensors["std"])
        return cls(images, Conditioning.from_tensors(tensors, "prompt_"))

    @classmethod
    def join(cls, *sets: PreservedImages) -> PreservedImages:
        """Several sets behind each other."""
        parts = [s.to_tensors() for s in sets]
        return cls.from_tensors({k: torch.cat([p[k] for p in parts]) for k in parts[0]})


@dataclass(frozen=True)
class CachedPrompts:
    """All that is cached: pairs with the category of each, and neutral images.

    Attributes:
        pairs: N cached pairs.
        categories: category of each pair.
        neutral: images of neutral prompts; may be empty.

    Raises:
        ValueError: not one category per pair.
    """

    pairs: LatentPairs
    categories: Sequence[str]
    neutral: PreservedImages

    def __post_init__(self) -> None:
        """Refuse categories of other pairs."""
        if len(self.categories) != len(self.pairs):
            raise ValueError(
                f"{len(self.pairs)} cached pairs, but {len(self.categories)} categories: the "
                f"latent cache was made of other training pairs; make both again"
            )

    @classmethod
    def from_tensors(
        cls,
        latent_cache: dict[str, Tensor],
        train_pairs: pd.DataFrame,
        preservation_cache: dict[str, Tensor],
    ) -> CachedPrompts:
        """What the artifacts hold.

        Args:
            latent_cache: posteriors and embeddings of all pairs.
            train_pairs: one row per pair, in the order of the cache.
            preservation_cache: posteriors and embeddings of neutral images.
        """
        return cls(
            LatentPairs.from_tensors(latent_cache),
            train_pairs["category"].tolist(),
            PreservedImages.from_tensors(preservation_cache),
        )

    def of(self, categories: Collection[str]) -> CachedPrompts:
        """Pairs of some categories, and all neutral images."""
        rows = [row for row, name in enumerate(self.categories) if name in categories]
        pairs = self.pairs.select(torch.tensor(rows, dtype=torch.int64))
        return CachedPrompts(pairs, [self.categories[row] for row in rows], self.neutral)


def encode_pairs(
    model: DiffusionModel,
    winners: np.ndarray,
    losers: np.ndarray,
    unsafe_prompts: Sequence[str],
    safe_prompts: Sequence[str],
    ids: Sequence[int],
    batch_size: int,
) -> LatentPairs:
    """Cache some pairs.

    Args:
        model: the model that is to be aligned.
        winners: x_S, uint8 ``[N, H, W, 3]``.
        losers: x_U, uint8 ``[N, H, W, 3]``.
        unsafe_prompts: p_U.
        safe_prompts: p_S.
        ids: identities of the pairs.
        batch_size: images or prompts encoded at once.
    """
    return LatentPairs(
        winners=_posteriors(model, winners, batch_size),
        losers=_posteriors(model, losers, batch_size),
        unsafe=encode_prompts(model, unsafe_prompts, batch_size),
        safe=encode_prompts(model, safe_prompts, batch_size),
        ids=torch.as_tensor(ids, dtype=torch.int64),
    )


def encode_preserved(
    model: DiffusionModel, images: np.ndarray, prompts: Sequence[str], batch_size: int
) -> PreservedImages:
    """Cache images (uint8 ``[M, H, W, 3]``) that belong to harmless prompts."""
    return PreservedImages(
        _posteriors(model, images, batch_size), encode_prompts(model, prompts, batch_size)
    )


def _posteriors(model: DiffusionModel, images: np.ndarray, batch_size: int) -> LatentImages:
    batches = [images[i : i + batch_size] for i in range(0, len(images), batch_size)]
    means, deviations = zip(*(model.encode_images(batch) for batch in batches), strict=True)
    return LatentImages(torch.cat(means).cpu(), torch.cat(deviations).cpu())


def encode_prompts(model: DiffusionModel, prompts: Sequence[str], batch_size: int) -> Conditioning:
    """Conditioning of N prompts on the CPU, ``batch_size`` of them encoded at once."""
    starts = range(0, len(prompts), batch_size)
    parts = [
        model.encode_prompts(prompts[start : start + batch_size]).to("cpu") for start in starts
    ]
    return Conditioning.join(*parts)
