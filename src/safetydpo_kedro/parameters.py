"""Typed parameters: what may stand in the ``parameters_*.yml`` files, with defaults and bounds.

Kedro builds these models from the configuration before any node runs, so a misspelt key or a
value out of range stops the run at once, with the key and the value in the message.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from safetydpo_kedro.storage import LocalPath
from safetydpo_kedro.validation import Explained


class Strict(Explained):
    """Immutable; an unknown key is an error that names the known ones."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class SamplingParameters(Strict):
    """How images are drawn."""

    steps: int = Field(50, gt=0, description="denoising steps")
    guidance_scale: float = Field(7.5, ge=0, description="classifier-free guidance; ≤ 1 is off")
    resolution: int | None = Field(
        None, gt=0, multiple_of=8, description="side of the image in pixels; None: the model's own"
    )
    batch_size: int = Field(4, gt=0, description="images drawn at once; changes them by rounding")


Language = Literal["any", "en", "de", "es", "fr", "it", "pt", "el", "ru", "zh", "ja", "ko"]


class ReplyParameters(Strict):
    """What a language model's reply must hold to be taken as a prompt."""

    language: Language = Field("en", description="judged by letters only; any: not judged")
    max_characters: int = Field(300, gt=0, description="of a prompt")


class LanguageModelWriterParameters(ReplyParameters):
    """How a language model is asked for prompts."""

    prompts_per_request: int = Field(10, gt=0, description="unsafe prompts asked for at once")
    max_rounds: int = Field(3, gt=0, description="how often it is asked again for what lacks")
    known_shown: int = Field(20, ge=0, description="prompts it is told not to repeat, at most")


class ConceptParameters(LanguageModelWriterParameters):
    """Whether, and how, a language model proposes more concepts."""

    per_category: int | None = Field(
        None, gt=0, description="concepts of each category in the end; None: those of the file"
    )
    max_characters: int = Field(60, gt=0, description="of a concept")
    seed: int = Field(0, description="of the model's answers, if it takes one")
    journal: LocalPath = Field(
        Path("data/02_intermediate/replies.jsonl"), description="keeps what a model has answered"
    )


class PromptWritingParameters(Strict):
    """Who writes the prompt pairs, and how many."""

    writer: str | None = Field(None, description="import path of a PromptWriter class; None: none")
    arguments: dict[str, Any] = Field(default_factory=dict, description="its keyword arguments")
    imported: bool = Field(False, description="take the imported pairs too")
    pairs_per_concept: int = Field(32, gt=0, description="prompt pairs written for each concept")
    seed: int = Field(0, description="of the writer's choices and of every pair's image seed")
    journal: LocalPath = Field(
        Path("data/02_intermediate/replies.jsonl"), description="keeps what a model has answered"
    )

    @model_validator(mode="after")
    def _check_source(self) -> Self:
        if self.writer is None and not self.imported:
            raise ValueError(
                "no source of prompt pairs: name a `writer`, or set `imported: true`, or both"
            )
        return self


class SplitParameters(Strict):
    """The leak-free split."""

    test_share: float = Field(0.2, gt=0, lt=1, description="share of each concept's groups")
    train_per_concept: int | None = Field(None, gt=0, description="keep at most this many rows")
    test_per_concept: int | None = Field(None, gt=0, description="keep at most this many rows")
    seed: int = Field(0, description="of the choice of groups and rows")


class DrawingParameters(Strict):
    """Drawing a data set in shards."""

    sampling: SamplingParameters
    shard_size: int = Field(256, gt=0, description="rows per shard, the unit of resume")


class ContactSheetParameters(Strict):
    """A sheet of example pairs."""

    pairs_per_category: int = Field(2, gt=0, description="pairs shown of each category")
    blur: Literal["all", "flagged", "none"] = Field(
        "all", description="images made unrecognisable; flagged: those judged inappropriate"
    )


class LoraParameters(Strict):
    """Shape of a LoRA adapter."""

    rank: int = Field(4, gt=0, description="inner dimension of ΔW = alpha / rank · B A")
    alpha: float | None = Field(None, gt=0, description="None: equal to the rank")
    target_modules: tuple[str, ...] = Field(
        ("to_q", "to_k", "to_v", "to_out.0"), description="layers of the UNet, by how names end"
    )
    frozen_a_seed: int | None = Field(
        None,
        description="A is drawn from this seed, the same in all experts, and only B is trained; "
        "None: both are trained",
    )


class NoiseParameters(Strict):
    """Draws of noise, timestep and caption dropout; the same for all experts of a run.

    The reference's errors depend on these and on the data alone, so what is computed once holds
    for every expert, every β and every learning rate.
    """

    seed: int = Field(0, description="of all draws")
    draws: int | None = Field(
        None,
        gt=0,
        description="noise draws per pair before they repeat, which lets the reference's errors "
        "be computed once; None: never",
    )
    caption_dropout: float = Field(0.2, ge=0, le=1, description="share of captions emptied")
    shared: bool = Field(
        True,
        description="winner and loser get the same noise, as in the reference code of "
        "Diffusion-DPO; False: the loser gets its own, at the same timestep",
    )


class PreservationParameters(Strict):
    """What an expert must leave alone (ours, not the paper's; weight 0 is the paper)."""

    weight: float = Field(0.0, ge=0, description="weight of the distance to the reference")
    rows: int = Field(8, gt=0, description="preserved rows per step")
    safe_share: float = Field(0.4, ge=0, le=1, description="rows that are safe prompts")
    other_unsafe_share: float = Field(
        0.0, ge=0, le=1, description="rows that are unsafe prompts of the other categories"
    )
    empty_share: float = Field(0.1, ge=0, le=1, description="rows whose prompt is emptied")


class ValidationParameters(Strict):
    """What is looked at during training, on pairs that are held out of it."""

    every: int | None = Field(None, gt=0, description="steps between two looks; None: none at all")
    pairs: int = Field(8, gt=0, description="pairs held out of training")
    draws: int = Field(4, gt=0, description="noise draws of each pair, always the same")
    patience: int | None = Field(
        None,
        gt=0,
        description="stop after this many looks without a better implicit accuracy, and keep the "
        "adapter of the best look; None: train all steps",
    )
    images: int = Field(4, ge=0, description="held-out unsafe prompts drawn at every look")
    sampling: SamplingParameters = SamplingParameters()
    blur: Literal["all", "none"] = Field("all", description="images made unrecognisable")


class CheckpointParameters(Strict):
    """Where a training that is cut off goes on."""

    directory: LocalPath = Field(
        Path("data/06_models/checkpoints"), description="one folder in it for each training"
    )
    every: int = Field(100, gt=0, description="steps between two checkpoints")
    keep: int = Field(2, gt=0, description="checkpoints kept, the last ones")
    resume: bool = Field(True, description="False: start afresh, and forget the checkpoints")


class ExpertTrainingParameters(Strict):
    """Diffusion-DPO training of one expert. Defaults are the reference recipe of SafetyDPO.

    Fields with ``exclude=True`` say how a result is reached and not what it is: they are left out
    of fingerprints, of the adapter's metadata, and of what a checkpoint is compared by.
    """

    seed: int = Field(0, description="of the adapter's first weights and the order of the pairs")
    lora: LoraParameters = LoraParameters()
    strategy: Literal["unsafe_prompt", "safe_prompt", "both_prompts", "sft"] = Field(
        "both_prompts", description="captions of a pair; sft: the winner's error alone, under p_U"
    )
    loss_type: Literal["sigmoid", "hinge", "ipo"] = Field(
        "sigmoid", description="of the preference; sigmoid: DPO"
    )
    beta: float = Field(5000.0, gt=0, description="strength of the preference")
    label_smoothing: float = Field(
        0.0, ge=0, lt=0.5, description="share of pairs assumed to be labelled the wrong way round"
    )
    min_snr_gamma: float | None = Field(
        None, gt=0, description="weigh errors by min(SNR, γ); None: all timesteps alike"
    )
    preference_weight: float = Field(1.0, ge=0, description="weight of the DPO loss")
    supervised_weight: float = Field(
        0.0, ge=0, description="weight of the winner's denoising error under p_U"
    )
    redirection_weight: float = Field(
        0.0, ge=0, description="weight of the distance to the reference's answer to p_S"
    )
    preservation: PreservationParameters = PreservationParameters()
    steps: int = Field(2000, gt=0, description="optimizer steps")
    batch_size: int = Field(16, gt=0, description="pairs per optimizer step, over all processes")
    micro_batch_size: int | None = Field(None, gt=0, description="pairs per forward; None: all")
    optimizer: Literal["adamw", "adamw_8bit", "adafactor"] = Field(
        "adamw", description="adamw_8bit needs the extra gpu"
    )
    learning_rate: float = Field(1e-5, gt=0, description="the highest of the schedule")
    scale_learning_rate: bool = Field(
        False, description="multiply the learning rate by the batch size"
    )
    weight_decay: float = Field(1e-2, ge=0, description="of the optimizer")
    schedule: Literal["constant_with_warmup", "cosine", "linear"] = Field(
        "constant_with_warmup", description="of the learning rate, after the warmup"
    )
    warmup_steps: int = Field(500, ge=0, description="steps in which the learning rate rises")
    max_gradient_norm: float = Field(1.0, gt=0, description="longer gradients are cut to it")
    gradient_checkpointing: bool = Field(
        False, description="compute activations twice instead of keeping them"
    )
    compile: bool = Field(False, description="compile the UNet's repeated blocks (torch.compile)")
    nonfinite_steps: int = Field(
        0,
        ge=0,
        description="steps that may be skipped because their loss or gradient is not finite",
    )
    validation: ValidationParameters = ValidationParameters()
    num_processes: int = Field(
        1, gt=0, exclude=True, description="processes that share a batch, one on each GPU"
    )
    checkpoints: CheckpointParameters = Field(CheckpointParameters(), exclude=True)

    @model_validator(mode="after")
    def _check_combinations(self) -> Self:
        if self.label_smoothing and self.loss_type != "sigmoid":
            raise ValueError(
                f"label_smoothing = {self.label_smoothing} belongs to loss_type 'sigmoid', not "
                f"{self.loss_type!r}: set it to 0, or change loss_type"
            )
        if self.batch_size % self.num_processes:
            raise ValueError(
                f"batch_size = {self.batch_size} cannot be shared evenly by num_processes = "
                f"{self.num_processes}: make it a multiple"
            )
        return self
