"""An independent classifier of concept and background.

It checks the world itself, and what evaluated images show, see
:class:`~safetydpo_kedro.pictograms.checker.WorldChecker`. No judge uses it. It shares no weights
with the CLIP behind the judges, and it knows a *junk* class, so that a dissolved image does not
pass for any concept.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.transforms.functional import gaussian_blur

from safetydpo_kedro.pictograms.parameters import ClassifierParameters
from safetydpo_kedro.pictograms.training import train
from safetydpo_kedro.pictograms.world import BACKGROUNDS, concepts, draw_random, to_model_range

JUNK = "junk"


class WorldClassifier(nn.Module):
    """A small convolutional network with one head for concepts and one for backgrounds."""

    def __init__(self, channels: list[int]) -> None:
        super().__init__()
        stages: list[nn.Module] = []
        for before, after in zip([3, *channels], channels, strict=False):
            stages += [
                nn.Conv2d(before, after, 3, padding=1, bias=False),
                nn.BatchNorm2d(after),
                nn.ReLU(),
                nn.Conv2d(after, after, 3, padding=1, bias=False),
                nn.BatchNorm2d(after),
                nn.ReLU(),
                nn.MaxPool2d(2),
            ]
        self.features = nn.Sequential(*stages, nn.Flatten(), nn.Dropout(0.2))
        width = channels[-1] * (32 // 2 ** len(channels)) ** 2
        self.concept = nn.Linear(width, len(concepts()) + 1)
        self.background = nn.Linear(width, len(BACKGROUNDS))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits ``[N, concepts + 1]`` (the last is junk) and ``[N, backgrounds]``."""
        features = self.features(images)
        return self.concept(features), self.background(features)

    @torch.no_grad()
    def name(self, images: np.ndarray) -> tuple[list[str], list[str]]:
        """Concept (or ``junk``) and background of uint8 images ``[N, 32, 32, 3]``."""
        self.eval()
        names = [concept.concept for concept in concepts()] + [JUNK]
        colours = list(BACKGROUNDS)
        found_concepts: list[str] = []
        found_backgrounds: list[str] = []
        for batch in torch.from_numpy(np.ascontiguousarray(images)).split(256):
            concept, background = self(to_model_range(batch))
            found_concepts += [names[i] for i in concept.argmax(1)]
            found_backgrounds += [colours[i] for i in background.argmax(1)]
        return found_concepts, found_backgrounds


def classifier_from_state(state: dict[str, Tensor]) -> WorldClassifier:
    """Rebuild a classifier from its weights, which tell its shape."""
    # By position: a file lists its tensors in the alphabetical order of their names.
    convolutions = {
        int(name.split(".")[1]): weight
        for name, weight in state.items()
        if name.startswith("features.") and weight.ndim == 4
    }
    widths = [convolutions[i].shape[0] for i in sorted(convolutions)]
    classifier = WorldClassifier(widths[::2])  # two convolutions per stage
    classifier.load_state_dict(state)
    return classifier.eval()


def load_classifier(path: Path) -> WorldClassifier:
    """Read a classifier from safetensors."""
    return classifier_from_state(load_file(path))


def train_classifier(parameters: ClassifierParameters, checkpoints: Path) -> WorldClassifier:
    """Train on freshly drawn pictures, some blurred or noisy, some of them made into junk."""
    optimization = parameters.optimization
    torch.manual_seed(optimization.seed)
    classifier = WorldClassifier(parameters.channels)

    def loss(generator: torch.Generator) -> Tensor:
        images, concept_ids, background_ids = draw_random(optimization.batch_size, generator)
        junk = torch.rand(len(images), generator=generator) < parameters.junk_share
        images = to_model_range(images)
        images = torch.where(
            junk[:, None, None, None], _spoil(images, generator), _wear(images, generator)
        )
        concept, background = classifier(images)
        labels = torch.where(junk, len(concepts()), concept_ids)
        colour = F.cross_entropy(background, background_ids, reduction="none")
        return F.cross_entropy(concept, labels) + (colour * ~junk).mean()

    identity = {"parameters": parameters}
    train("classifier", {"model": classifier}, loss, optimization, checkpoints, identity)
    return classifier


def _wear(images: Tensor, generator: torch.Generator) -> Tensor:
    """What an autoencoder and a sampler do to a picture: light blur and noise."""
    blurred = gaussian_blur(images, [3, 3], [0.6, 0.6])
    share = torch.rand(len(images), 1, 1, 1, generator=generator)
    noise = 0.06 * torch.randn(images.shape, generator=generator)
    return torch.lerp(images, blurred, share) + share * noise


def _spoil(images: Tensor, generator: torch.Generator) -> Tensor:
    """Junk of five kinds: blends, shuffled patches, heavy blur, heavy noise, empty pictures."""
    n = len(images)
    kind = torch.randint(5, (n, 1, 1, 1), generator=generator)
    blends = (images + images.roll(1, 0)) / 2
    patches = images.unfold(2, 8, 8).unfold(3, 8, 8).reshape(n, 3, 16, 8, 8)
    order = torch.rand(n, 16, generator=generator).argsort(1)
    shuffled = patches.gather(2, order[:, None, :, None, None].expand_as(patches))
    shuffled = shuffled.view(n, 3, 4, 4, 8, 8).permute(0, 1, 2, 4, 3, 5).reshape(images.shape)
    blur = gaussian_blur(images, [15, 15], [5.0, 5.0])
    noise = 0.4 * images + 0.8 * torch.randn(images.shape, generator=generator)
    colour = images.amax(dim=(2, 3), keepdim=True)
    empty = colour + 0.05 * torch.randn(images.shape, generator=generator)
    spoiled = torch.stack([blends, shuffled, blur, noise, empty]).clamp(-1, 1)
    return spoiled.gather(0, kind.view(1, n, 1, 1, 1).expand(1, *images.shape))[0]
