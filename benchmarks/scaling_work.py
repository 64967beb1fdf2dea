"""How much SafetyDPO has to compute and to write at the paper's scale, counted from ``conf/sdxl``.

:mod:`benchmarks.scaling` lays this work on the workers of a cluster. To see your own cluster, put
measured rates into :class:`Rates`.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from safetydpo_kedro.settings import BASELINES, CATEGORIES

DRAWN, JUDGED = 256, 512  # rows of a shard of the evaluation
SHARD = 128  # and of the data


@dataclass(frozen=True)
class Rates:
    """Seconds, on one GPU where nothing else is said. None of them was measured by this project.

    Attributes:
        image: to draw one of 1024 px in 50 steps with guidance. 5.93 s: diffusers on an A100 80G,
            github.com/fal-ai/stable-diffusion-benchmarks.
        forward: of the UNet for one latent: ``image`` has 100 of them, and little else.
        encode: an image by the autoencoder; assumed: half of what that source gives for decoding.
        judge: an image by Q16, NudeNet, CLIPScore and Inception; assumed: NudeNet and the PNG
            take CPU time, docs/results/benchmarks.md has 1.1 s on two cores at 512 px.
        write: a pair of prompts, by one server for all. 1 / 3.8 s: Llama 2 7B in vLLM on an A10G,
            128 tokens a request, github.com/neuralmagic/nm-vllm, one request a pair.
        start: a worker loads the model for its share of a node; assumed.
        other: a node without a model; assumed.
    """

    image: float = 5.93
    forward: float = 5.93 / 100
    encode: float = 0.1
    judge: float = 0.05
    write: float = 1 / 3.8
    start: float = 60.0
    other: float = 20.0


@dataclass(frozen=True)
class Scale:
    """How much there is to do. Budgets are those of ``conf/sdxl`` where nothing else is said.

    Attributes:
        concepts, pairs_per_concept, test_share: of the paper, and of ``conf/sdxl``.
        preserved: neutral images; the shipped prompts are 48, a recipe that preserves needs more.
        draws: noise draws of a pair that the reference is asked for.
        steps, batch: of one expert.
        looks, look_images, look_errors: of its validation: how often, images and forwards each.
        profile, fitting: forwards of the two nodes of merging that ask the model.
        benchmark: prompts of an evaluation beside the held-out ones: I2P, UD, COCO.
    """

    concepts: int = 723
    pairs_per_concept: int = 32
    test_share: float = 0.2
    preserved: int = 1000
    draws: int = 4
    steps: int = 2000
    batch: int = 16
    looks: int = 11
    look_images: int = 4
    look_errors: int = 16 * 4 * 4
    profile: int = 448 * (1 + len(CATEGORIES))
    fitting: int = 150 * 2 * 32 * 3 + 448 * 5 // 2 * (1 + len(CATEGORIES))
    benchmark: int = 4703 + 934 + 3000

    @property
    def pairs(self) -> int:
        """All pairs that are written."""
        return self.concepts * self.pairs_per_concept

    @property
    def train(self) -> int:
        """Pairs that are drawn and trained on."""
        return round(self.pairs * (1 - self.test_share))

    @property
    def prompts(self) -> int:
        """Prompts that every variant draws: both of every held-out pair, and the benchmarks."""
        return 2 * (self.pairs - self.train) + self.benchmark


@dataclass(frozen=True)
class Shapes:
    """What lies on the disk: SDXL at 1024 px, in bfloat16 as ``conf/sdxl`` loads it.

    Attributes:
        latent: numbers of one latent; mean and deviation of it are kept.
        embedding: of one prompt: the hidden states of 77 tokens, and the pooled embedding.
        itemsize: bytes of a number.
        png: bytes of an image of 1024 px; assumed, half of its 3.1 MB of pixels.
        features: bytes of a judged image: 2048 numbers of Inception in float32, and scores.
        adapter: bytes of a LoRA of rank 4 in float32, docs/results/benchmarks.md.
        model: bytes of the weights in half precision that a worker reads, autoencoder included.
    """

    latent: int = 4 * 128 * 128
    embedding: int = 77 * 2048 + 1280
    itemsize: int = 2
    png: float = 1.5e6
    features: float = 9e3
    adapter: float = 22.1 * 2**20
    model: float = 7.0e9

    @property
    def cached_image(self) -> int:
        """Bytes of an image and its prompt in a cache."""
        return (2 * self.latent + self.embedding) * self.itemsize


@dataclass(frozen=True)
class Work:
    """Of a node: seconds, and shards that it falls into (0: it cannot be shared)."""

    seconds: float
    shards: int = 0
    model: bool = True


def work_of(name: str, scale: Scale, rates: Rates) -> Work:
    """Of a node of the default run under ``--env sdxl``."""
    stage, _, node = name.rpartition(".")
    variant = stage.removeprefix("evaluation.")
    data = {
        "write_prompts": Work(scale.pairs * rates.write, model=False),
        "draw_image_pairs": Work(2 * scale.train * rates.image, ceil(scale.train / SHARD)),
        "draw_preservation_images": Work(
            scale.preserved * rates.image, ceil(scale.preserved / SHARD)
        ),
        "cache_latents": Work(2 * scale.train * rates.encode, ceil(scale.train / SHARD)),
        "cache_preservation": Work(scale.preserved * rates.encode, ceil(scale.preserved / SHARD)),
        # two captions, winner and loser
        "score_reference": Work(
            scale.train * scale.draws * 4 * rates.forward, ceil(scale.train / SHARD)
        ),
        "judge_image_pairs": Work(2 * scale.train * rates.judge, model=False),
        # forward, forward again (checkpointing) and backward to the adapter, of winner and loser
        "train_expert": Work(
            scale.steps * scale.batch * 6 * rates.forward
            + scale.looks * (scale.look_images * rates.image + scale.look_errors * rates.forward)
        ),
        "record_activation_profile": Work(scale.profile * rates.forward, 1),
        "fit_merge_weights": Work(scale.fitting * rates.forward),
        "draw_images": Work(scale.prompts * rates.image, ceil(scale.prompts / DRAWN)),
        "judge_images": Work(scale.prompts * rates.judge, ceil(scale.prompts / JUDGED)),
    }
    if variant in (*BASELINES, "external") or node not in data:  # skipped, or quick
        return Work(rates.other, model=False)
    return data[node]
