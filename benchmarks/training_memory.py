"""Peak memory of one training step, and of sampling, for the published architectures.

Run ``python -m benchmarks.training_memory``; it prints Markdown. On a CUDA device the peaks are
measured, elsewhere they are computed (:mod:`benchmarks.meters`), and checked against real
steps on the CPU. The step is the project's own: the trainer's loss, backward, optimizer.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain

import diffusers
import torch
from torch import Tensor, nn

from benchmarks.architectures import (
    ARCHITECTURES,
    NOISE,
    Architecture,
    random_text_encoders,
    random_unet,
    random_vae,
)
from benchmarks.meters import COMPUTED, DEVICE, PROFILED, Meter, size_of
from benchmarks.recipes import second_model, two_unet_loss, update
from benchmarks.tables import GIB, MIB, table
from safetydpo_kedro.diffusion.adapters import checkpointed_activations, trainable_adapter
from safetydpo_kedro.diffusion.conditioning import Conditioning
from safetydpo_kedro.diffusion.model import DiffusionModel
from safetydpo_kedro.diffusion.registry import diffusion_model
from safetydpo_kedro.parameters import ExpertTrainingParameters, NoiseParameters
from safetydpo_kedro.preference.data import TrainingData
from safetydpo_kedro.preference.inputs import Inputs
from safetydpo_kedro.preference.objective import Objective
from safetydpo_kedro.preference.optimizers import make_optimizer

RESOLUTIONS = {"sd15": 512, "sd21": 768, "sdxl": 1024}
PRECISION = torch.bfloat16
IMAGES = 4  # drawn at once in the table of sampling
OPTIMIZERS = ("adamw", "adamw_8bit", "adafactor")
CHECKED_RESOLUTION = 256  # of the real SD 1.5 steps that check the computed peak
TOKENS = 77


@dataclass(frozen=True)
class Variant:
    """How a step is made.

    Attributes:
        pairs: in one forward.
        checkpointing: of activations.
        second_unet: is the reference, instead of the UNet without its adapter.
    """

    pairs: int = 1
    checkpointing: bool = False
    second_unet: bool = False

    def __str__(self) -> str:
        reference = "second UNet as the reference" if self.second_unet else "adapter off"
        return reference + (", checkpointing" if self.checkpointing else "")


VARIANTS = (
    Variant(),
    Variant(pairs=4),
    Variant(checkpointing=True),
    Variant(pairs=4, checkpointing=True),
    Variant(second_unet=True),
)
CHECKS = (
    (Variant(), torch.float32),
    (Variant(checkpointing=True), torch.float32),
    (Variant(), torch.bfloat16),
)


def unet_alone(architecture: Architecture, precision: torch.dtype) -> DiffusionModel:
    """A model without its other parts; its weights are on the meta device and take no memory."""
    with torch.device("meta"):
        unet = random_unet(architecture).to(precision)
    kind, settings = architecture.scheduler
    parts = {"unet": unet, "scheduler": kind(**NOISE, **settings)}
    absent = ["vae", "text_encoder", "tokenizer"]
    if len(architecture.text_encoders) == 1:
        absent += ["safety_checker", "feature_extractor"]
        options = {"requires_safety_checker": False}
    else:
        absent += ["text_encoder_2", "tokenizer_2"]
        options = {"add_watermarker": False}
    return diffusion_model(architecture.pipeline(**parts, **dict.fromkeys(absent), **options))


def materialise(model: DiffusionModel, device: str) -> None:
    """Give the UNet memory on a device, where the model computes from then on."""
    model.unet.to_empty(device=device)
    model.device = torch.device(device)


def random_inputs(model: DiffusionModel, resolution: int, pairs: int) -> Inputs:
    """Rows of ``pairs`` pairs, in the shapes and types that the trainer makes them."""
    rows, side, config = 2 * pairs, resolution // 8, model.unet.config
    text = {"embedding": torch.randn(rows, TOKENS, config.cross_attention_dim)}
    if config.addition_embed_type == "text_time":
        sizes = 6 * config.addition_time_embed_dim
        text["pooled"] = torch.randn(rows, config.projection_class_embeddings_input_dim - sizes)
    captions = Conditioning(text).to(model.device, model.dtype)
    return Inputs(
        noisy=torch.randn(rows, config.in_channels, side, side, device=model.device),
        target=torch.randn(rows, config.in_channels, side, side, device=model.device),
        timesteps=torch.randint(model.train_timesteps, (rows,), device=model.device),
        captions=captions,
        unsafe=torch.ones(pairs, dtype=torch.bool, device=model.device),
    )


def training_peak(
    architecture: Architecture,
    resolution: int,
    variant: Variant,
    meter: Meter,
    precision: torch.dtype = PRECISION,
) -> int:
    """Peak bytes of one optimizer step, with the UNet alone on the device.

    The adapter's parameters are the reference recipe's. The optimizer has its state already, as in
    every step but the first.
    """
    model = unet_alone(architecture, precision)
    parameters = ExpertTrainingParameters(gradient_checkpointing=variant.checkpointing)
    frozen = second_model(model) if variant.second_unet else None
    with (
        trainable_adapter(model.unet, parameters.lora, parameters.seed),
        checkpointed_activations(model.unet, variant.checkpointing),
        meter.tensors(),
    ):
        for whole in [model, *([frozen] if frozen else [])]:
            materialise(whole, meter.device)
        weights = [weight for weight in model.unet.parameters() if weight.requires_grad]
        optimizer = make_optimizer(weights, parameters)
        resident = [*tensors(model.unet), *first_step(optimizer)]
        resident += tensors(frozen.unet) if frozen else []
        objective = Objective(model, TrainingData(None), NoiseParameters(), parameters)
        inputs = random_inputs(model, resolution, variant.pairs)
        resident += [inputs.noisy, inputs.target, *inputs.captions.tensors.values()]

        def step() -> None:
            loss = (
                two_unet_loss(model, frozen, inputs, parameters.beta)
                if frozen
                else objective.loss(inputs)[0]
            )
            update(loss, weights, optimizer, parameters)

        return meter.peak(resident, step)


def tensors(module: nn.Module) -> list[Tensor]:
    """Everything that a module keeps in memory."""
    return [*module.parameters(), *module.buffers()]


def first_step(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """Step on gradients of zero, which makes the optimizer's state; return its tensors."""
    for group in optimizer.param_groups:
        for weight in group["params"]:
            weight.grad = torch.zeros_like(weight)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    values = chain.from_iterable(state.values() for state in optimizer.state.values())
    return [value for value in values if isinstance(value, Tensor)]


def optimizer_sizes(architecture: Architecture) -> dict[str, int]:
    """Bytes of the adapter's weights, and of each optimizer's state for them."""
    parameters = ExpertTrainingParameters()
    model = unet_alone(architecture, PRECISION)
    with trainable_adapter(model.unet, parameters.lora, parameters.seed) as shapes:
        weights = [nn.Parameter(torch.zeros(shape.shape)) for shape in shapes]
    sizes = {"adapter": size_of(weights)}
    for name in OPTIMIZERS:
        settings = parameters.model_copy(update={"optimizer": name})
        sizes[name] = size_of(first_step(make_optimizer(weights, settings)))
    return sizes


@torch.no_grad()
def denoising_peak(architecture: Architecture, resolution: int, meter: Meter) -> int:
    """Peak bytes of one denoising step of sampling, with and without prompt in one batch."""
    model = unet_alone(architecture, PRECISION)
    with meter.tensors():
        materialise(model, meter.device)
        inputs = random_inputs(model, resolution, IMAGES)
        rows = inputs.noisy, inputs.timesteps, inputs.captions
        return meter.peak(tensors(model.unet), lambda: model.predict(*rows))


@torch.no_grad()
def decoding_peak(architecture: Architecture, resolution: int, slicing: bool, meter: Meter) -> int:
    """Peak bytes of the autoencoder's decoder."""
    with torch.device("meta"):
        vae = random_vae(architecture).to(PRECISION)
    vae.use_slicing = slicing
    side = resolution // 8
    with meter.tensors():
        vae.to_empty(device=meter.device)
        latents = torch.randn(
            IMAGES, vae.config.latent_channels, side, side, device=meter.device, dtype=PRECISION
        )
        return meter.peak(tensors(vae), lambda: vae.decode(latents))


def other_parts(architecture: Architecture) -> int:
    """Bytes of the autoencoder and the text encoders."""
    with torch.device("meta"):
        parts = [random_vae(architecture), *random_text_encoders(architecture)]
    return sum(size_of(tensors(part.to(PRECISION))) for part in parts)


def gib(size: int) -> str:
    """As in the tables."""
    return f"{size / GIB:.2f}"


def training_rows(meter: Meter) -> list[list[str]]:
    rows = []
    for family, resolution in RESOLUTIONS.items():
        architecture = ARCHITECTURES[family]
        resident = other_parts(architecture)
        for variant in VARIANTS:
            peak = training_peak(architecture, resolution, variant, meter)
            case = [family, str(resolution), str(variant), str(variant.pairs)]
            rows.append([*case, gib(peak), gib(peak + resident)])
    return rows


def sampling_rows(meter: Meter) -> list[list[str]]:
    rows = []
    for family, resolution in RESOLUTIONS.items():
        architecture = ARCHITECTURES[family]
        peaks = [
            denoising_peak(architecture, resolution, meter),
            decoding_peak(architecture, resolution, False, meter),
            decoding_peak(architecture, resolution, True, meter),
        ]
        rows.append([family, str(resolution), str(IMAGES), *map(gib, peaks)])
    return rows


def check_rows() -> list[list[str]]:
    """Computed against real, on cases that a CPU can run."""
    rows = []
    for variant, precision in CHECKS:
        case = ARCHITECTURES["sd15"], CHECKED_RESOLUTION, variant
        computed = training_peak(*case, COMPUTED, precision)
        real = training_peak(*case, PROFILED, precision)
        name = f"{str(precision).removeprefix('torch.')}, {variant}"
        rows.append([name, gib(computed), gib(real), f"{computed / real - 1:+.1%}"])
    return rows


def main() -> None:
    diffusers.logging.set_verbosity_error()
    on_device = torch.cuda.is_available()
    meter = DEVICE if on_device else COMPUTED
    source = f"measured on {torch.cuda.get_device_name()}" if on_device else "computed"
    sizes = [(name, optimizer_sizes(a)) for name, a in ARCHITECTURES.items()]
    table(
        "Adapter and optimizer state, MiB",
        "model | adapter | " + " | ".join(OPTIMIZERS),
        [[name, *(f"{size / MIB:.1f}" for size in row.values())] for name, row in sizes],
    )
    table(
        f"Training step, GiB, {source}",
        "model | pixels | reference | pairs | UNet alone (offload) | all parts resident",
        training_rows(meter),
    )
    table(
        f"Sampling, GiB, {source}",
        "model | pixels | images | denoising | decoding | decoding, slicing",
        sampling_rows(meter),
    )
    table(
        f"Check: SD 1.5, {CHECKED_RESOLUTION} px, one pair, a real step on the CPU, GiB",
        "case | computed | real | difference",
        check_rows(),
    )


if __name__ == "__main__":
    main()
