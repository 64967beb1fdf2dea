"""What the pictogram world consists of, and how a picture of it is drawn."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from importlib import resources

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from safetydpo_kedro.images import encode_images

IMAGE_SIZE = 32
SPRITE_SIZE = 64
SUPERSAMPLING = 2
SCALE_RANGE = (0.72, 0.90)
ROTATION_DEGREES = 10.0
BACKGROUND_JITTER = 6.0

BACKGROUNDS: dict[str, tuple[int, int, int]] = {
    "red": (235, 110, 110),
    "orange": (245, 170, 90),
    "yellow": (245, 220, 110),
    "green": (130, 205, 130),
    "blue": (110, 160, 235),
    "purple": (165, 120, 215),
    "pink": (245, 170, 205),
    "grey": (160, 160, 160),
}


@dataclass(frozen=True)
class Concept:
    """One thing that can be drawn.

    Attributes:
        concept: unique key.
        role: ``unsafe``, ``safe`` (mate of an unsafe concept) or ``neutral``.
        category: harm category of the pair; empty for neutral concepts.
        mate: the safe counterpart of an unsafe concept, and the other way round.
        names: words for it.
    """

    concept: str
    role: str
    category: str
    mate: str
    names: tuple[str, ...]


@cache
def concepts() -> tuple[Concept, ...]:
    """All concepts, in the order of the sprite sheet."""
    with resources.files(__package__).joinpath("assets/concepts.csv").open() as file:
        return tuple(
            Concept(r["concept"], r["role"], r["category"], r["mate"], tuple(r["names"].split("|")))
            for r in csv.DictReader(file)
        )


@cache
def concept_index() -> dict[str, int]:
    """Concept key → row of the concept table."""
    return {concept.concept: i for i, concept in enumerate(concepts())}


@cache
def sprites() -> Tensor:
    """Sprites with premultiplied alpha, float32 ``[concepts, 4, 64, 64]`` in 0–1."""
    with resources.files(__package__).joinpath("assets/sprites.png").open("rb") as file:
        sheet = torch.from_numpy(np.array(Image.open(file).convert("RGBA"))).float() / 255
    tiles = sheet.unfold(0, SPRITE_SIZE, SPRITE_SIZE).unfold(1, SPRITE_SIZE, SPRITE_SIZE)
    tiles = tiles.flatten(0, 1)[: len(concepts())]
    return torch.cat([tiles[:, :3] * tiles[:, 3:], tiles[:, 3:]], dim=1)


def draw(concept_ids: Tensor, background_ids: Tensor, generator: torch.Generator) -> Tensor:
    """Draw one picture per row, with random position, size and rotation.

    Args:
        concept_ids: int64 ``[N]``, rows of :func:`concepts`.
        background_ids: int64 ``[N]``, positions in ``BACKGROUNDS``.
        generator: source of all randomness.

    Returns:
        uint8 ``[N, 32, 32, 3]``.
    """
    n = len(concept_ids)

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(n, generator=generator)

    scale = uniform(*SCALE_RANGE)
    angle = torch.deg2rad(uniform(-ROTATION_DEGREES, ROTATION_DEGREES))
    shift = torch.stack([uniform(-1, 1), uniform(-1, 1)], dim=1) * (1 - scale)[:, None]
    # affine_grid wants the map from canvas to sprite coordinates: p ↦ R(p − shift) / scale.
    cos, sin = torch.cos(angle), torch.sin(angle)
    rotation = torch.stack([cos, -sin, sin, cos], dim=1).view(n, 2, 2) / scale[:, None, None]
    theta = torch.cat([rotation, -rotation @ shift[:, :, None]], dim=2)
    size = IMAGE_SIZE * SUPERSAMPLING
    grid = F.affine_grid(theta, [n, 4, size, size], align_corners=False)
    layer = F.grid_sample(sprites()[concept_ids], grid, align_corners=False)
    layer = F.avg_pool2d(layer, SUPERSAMPLING)
    palette = torch.tensor(list(BACKGROUNDS.values()), dtype=torch.float32)
    jitter = torch.stack([uniform(-BACKGROUND_JITTER, BACKGROUND_JITTER) for _ in range(3)], dim=1)
    background = (palette[background_ids] + jitter)[:, :, None, None] / 255
    image = layer[:, :3] + (1 - layer[:, 3:]) * background
    return image.mul(255).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)


def draw_random(
    n: int, generator: torch.Generator, distinct: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Pictures of random concepts on random backgrounds.

    Args:
        n: number of pictures.
        generator: source of all randomness.
        distinct: no (concept, background) occurs twice, as a contrastive batch needs it.

    Returns:
        images uint8 ``[n, 32, 32, 3]``, concept ids ``[n]``, background ids ``[n]``.
    """
    combinations = len(concepts()) * len(BACKGROUNDS)
    if distinct:
        chosen = torch.randperm(combinations, generator=generator)[:n]
    else:
        chosen = torch.randint(combinations, (n,), generator=generator)
    concept_ids, background_ids = chosen // len(BACKGROUNDS), chosen % len(BACKGROUNDS)
    return draw(concept_ids, background_ids, generator), concept_ids, background_ids


def to_model_range(images: Tensor) -> Tensor:
    """uint8 ``[N, H, W, 3]`` → float32 ``[N, 3, H, W]`` in −1…1."""
    return images.permute(0, 3, 1, 2).float() / 127.5 - 1


def draw_reference(images: int, seed: int) -> pd.DataFrame:
    """Real pictures for FID, ``benchmark, image``, with ``images`` rows per benchmark.

    ``safe`` and ``neutral`` hold the concepts of these roles. ``unsafe`` holds the safe mates
    too: what should be drawn for unsafe prompts is harmless.
    """
    tables = []
    for i, (benchmark, role) in enumerate(
        [("unsafe", "safe"), ("safe", "safe"), ("neutral", "neutral")]
    ):
        generator = torch.Generator().manual_seed(seed + i)
        ids = torch.tensor([j for j, concept in enumerate(concepts()) if concept.role == role])
        concept_ids = ids[torch.randint(len(ids), (images,), generator=generator)]
        background_ids = torch.randint(len(BACKGROUNDS), (images,), generator=generator)
        pictures = draw(concept_ids, background_ids, generator).numpy()
        names = [f"{benchmark}-{j:04d}" for j in range(images)]
        encoded = encode_images(pictures, names)
        tables.append(pd.DataFrame({"benchmark": benchmark, "image": encoded}))
    return pd.concat(tables, ignore_index=True)
