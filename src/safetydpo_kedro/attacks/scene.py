"""What an attack may know and do: the goal, the unprotected model, the victim, the judges."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from safetydpo_kedro.diffusion.drawing import Sampler
from safetydpo_kedro.diffusion.model import DiffusionModel
from safetydpo_kedro.diffusion.tokens import Vocabulary, token_table
from safetydpo_kedro.parameters import SamplingParameters
from safetydpo_kedro.prompts.exclusion import is_excluded

Images = NDArray[np.uint8]
Judge = Callable[[Images], NDArray[np.bool_]]
Similarity = Callable[[Images, Sequence[str]], NDArray[np.float32]]


@dataclass(frozen=True)
class Goal:
    """What an attacker wants to see drawn.

    Attributes:
        prompt_id: of the prompt.
        prompt: asks for it openly.
        seed: of the image.
        category: of harm, or None.
        safe_prompt: the harmless counterpart of ``prompt``, or None.
        image: what the unprotected model draws for it, uint8 ``[H, W, 3]``; None for attacks that
            do not look at it.
    """

    prompt_id: str
    prompt: str
    seed: int
    category: str | None = None
    safe_prompt: str | None = None
    image: Images | None = None

    @property
    def sensitive_words(self) -> list[str]:
        """Words of the prompt that its counterpart lacks: what a filter would look for.

        Without a counterpart these are all its words.

        Example:
            >>> goal = Goal("1", "a red picture of gun", 0, safe_prompt="a red picture of spoon")
            >>> goal.sensitive_words
            ['gun']
        """
        harmless = set((self.safe_prompt or "").casefold().split())
        return [word for word in self.prompt.casefold().split() if word not in harmless]


@dataclass(frozen=True)
class Victim:
    """A variant under attack.

    Attributes:
        model: its text encoders and denoiser.
        patch: within the block that it gives, the model's weights are the variant's; nothing for
            a model that is the variant itself.
        sampler: draws as the variant does while it is patched; None: as the model does. Gradients
            never see more than the patched weights: guidance of a sampler's own is a black box.
    """

    model: DiffusionModel
    patch: Callable[[], AbstractContextManager[Any]] = nullcontext
    sampler: Sampler | None = None

    def draw(
        self, prompts: Sequence[str], seeds: Sequence[int], sampling: SamplingParameters
    ) -> Images:
        """Images ``[N, H, W, 3]``; call it within :attr:`patch`.

        What the exclusion rule hits is never drawn; its image is black.
        """
        sample = self.sampler or self.model.sample
        kept = [i for i, prompt in enumerate(prompts) if not is_excluded(prompt)]
        if len(kept) == len(prompts):
            return sample(prompts, seeds, sampling)
        # There is an image of the right size even where no prompt is left.
        drawn = sample([*(prompts[i] for i in kept), ""], [*(seeds[i] for i in kept), 0], sampling)
        images = np.zeros((len(prompts), *drawn.shape[1:]), drawn.dtype)
        images[kept] = drawn[:-1]
        return images


@dataclass(frozen=True)
class Scene:
    """Everything around a search but its goal.

    Attributes:
        base: the unprotected model.
        victim: the variant under attack; attacks that see none only use its text encoders.
        sampling: how images are drawn.
        harmful: images ``[N, H, W, 3]`` → bool ``[N]``; tells a search when it may stop. None:
            for attacks that never ask.
        similarity: images and N texts → cosine of their CLIP embeddings, float32 ``[N]``; likewise.
        pairs: category → unsafe prompts and their safe counterparts, for attacks that learn from
            them what sets harm apart.
        encoding_batch: prompts that text encoders read at once.
        denoising_batch: rows that a denoiser reads at once.
        aim: cosine of image and goal from which a harmful image counts as what the goal asked for;
            None: any harm will do.
    """

    base: DiffusionModel
    victim: Victim
    sampling: SamplingParameters
    harmful: Judge | None = None
    similarity: Similarity | None = None
    pairs: Mapping[str, tuple[Sequence[str], Sequence[str]]] = field(default_factory=dict)
    encoding_batch: int = 64
    denoising_batch: int = 16
    aim: float | None = None

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """Words of the victim's tokenizer."""
        return Vocabulary(self.victim.model.text_towers)

    def allowed(self, forbidden: Sequence[str] = ()) -> Tensor:
        """Tokens that a search may write, int64 ``[W]``: all words but these, and but minors'.

        A random word must not bring minors into a harmful prompt, so that the words which the
        exclusion rule takes for minors are never among them.

        Raises:
            ValueError: no words are left.
        """
        return self.vocabulary.allowed([*forbidden, *self._words_about_minors])

    @cached_property
    def _words_about_minors(self) -> list[str]:
        return [word for word in self.vocabulary.words if is_excluded(word, category="sexual")]

    @cached_property
    def table(self) -> Tensor:
        """Token embeddings of all the victim's text encoders, float32 ``[V, Σ width]``."""
        return token_table(self.victim.model.text_towers)

    @cached_property
    def notes(self) -> dict[Any, Any]:
        """What attacks have worked out and need again for the next goal."""
        return {}

    def latents(self, goal: Goal) -> Tensor:
        """Latents of the goal's image, ``[1, C, h, w]``: the mean of their posterior.

        Raises:
            ValueError: the goal has no image.
        """
        if goal.image is None:
            raise ValueError(f"goal '{goal.prompt_id}' has no image, and the attack needs one")
        return self.base.encode_images(goal.image[None])[0]

    def answers(self, images: Images, goal: Goal) -> NDArray[np.bool_]:
        """Whether images ``[N, H, W, 3]`` are what the goal asked for: harmful, and like it.

        Raises:
            ValueError: there are no judges.
        """
        if self.harmful is None or (self.aim is not None and self.similarity is None):
            raise ValueError(
                "the scene has nothing that tells harmful images, or how like they are"
            )
        harm = np.asarray(self.harmful(images), bool)
        if self.aim is None or self.similarity is None:
            return harm
        return harm & (self.similarity(images, [goal.prompt] * len(images)) >= self.aim)

    def batches(self, ids: Tensor, size: int, function: Callable[[Tensor], Tensor]) -> Tensor:
        """A function of rows, computed for ``size`` of them at once, without gradients."""
        with torch.no_grad():
            return torch.cat([function(part) for part in ids.split(size)])
