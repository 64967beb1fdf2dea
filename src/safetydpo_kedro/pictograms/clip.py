"""The world's CLIP: an open_clip model, and its text tower in transformers' form."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import open_clip
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from safetydpo_kedro.artifacts import fingerprint
from safetydpo_kedro.pictograms.captions import TEMPLATES, THEMES, caption, theme
from safetydpo_kedro.pictograms.parameters import ClipParameters
from safetydpo_kedro.pictograms.training import train
from safetydpo_kedro.pictograms.world import BACKGROUNDS, concepts, draw_random, to_model_range


def tokenize(tokenizer: CLIPTokenizer, prompts: list[str]) -> Tensor:
    """Token ids, int64 ``[N, max_length]``, padded with the end token."""
    return tokenizer(prompts, padding="max_length", truncation=True, return_tensors="pt").input_ids


def train_clip(
    tokenizer: CLIPTokenizer, parameters: ClipParameters, checkpoints: Path
) -> open_clip.CLIP:
    """Contrastive training (Radford et al. 2021) on freshly drawn pictures and captions.

    A batch holds every (concept, background) at most once. A share of the captions tells the
    theme instead of the name (``"violence on a blue background"``), and is right for every
    picture of that theme: what the web's captions teach a real CLIP about harm, and what a judge
    with two prompts relies on. Each row's target is spread over all its right answers.
    """
    torch.manual_seed(parameters.optimization.seed)
    shape = open_clip_config(parameters, tokenizer)["model_cfg"]
    model = open_clip.CLIP(**shape, output_dict=True)

    def loss(generator: torch.Generator) -> Tensor:
        images, concept_ids, background_ids = draw_random(
            parameters.optimization.batch_size, generator, distinct=True
        )
        captions, right = _describe(concept_ids, background_ids, parameters.theme_share, generator)
        out = model(to_model_range(images), tokenize(tokenizer, captions))
        logits = out["logit_scale"] * out["image_features"] @ out["text_features"].T
        to_text = F.cross_entropy(logits, right / right.sum(1, keepdim=True))
        to_image = F.cross_entropy(logits.T, right.T / right.T.sum(1, keepdim=True))
        return (to_text + to_image) / 2

    identity = {"parameters": parameters, "tokenizer": fingerprint(tokenizer.get_vocab())}
    train("CLIP", {"model": model}, loss, parameters.optimization, checkpoints, identity)
    return model


def _describe(
    concept_ids: Tensor, background_ids: Tensor, theme_share: float, generator: torch.Generator
) -> tuple[list[str], Tensor]:
    """A caption for each picture, and which picture (row) each caption (column) is right for."""
    n = len(concept_ids)
    draws = torch.randint(1 << 30, (n, 2), generator=generator).tolist()
    by_theme = torch.rand(n, generator=generator) < theme_share
    chosen = [concepts()[i] for i in concept_ids.tolist()]
    colours = [list(BACKGROUNDS)[i] for i in background_ids.tolist()]
    captions = [
        caption(
            theme(concept) if thematic else concept.names[a % len(concept.names)],
            colour,
            b % len(TEMPLATES),
        )
        for concept, colour, thematic, (a, b) in zip(
            chosen, colours, by_theme.tolist(), draws, strict=True
        )
    ]
    themes = torch.tensor([THEMES.index(theme(concept)) for concept in chosen])
    same_theme = themes[:, None] == themes[None]
    same_concept = concept_ids[:, None] == concept_ids[None]
    same_background = background_ids[:, None] == background_ids[None]
    right = torch.where(by_theme[None], same_theme, same_concept) & same_background
    return captions, right.float()


def open_clip_config(parameters: ClipParameters, tokenizer: CLIPTokenizer) -> dict[str, Any]:
    """What open_clip keeps in ``open_clip_config.json``."""
    text = {"vocab_size": len(tokenizer), "context_length": tokenizer.model_max_length}
    return {
        "model_cfg": {
            "embed_dim": parameters.embed_dim,
            "vision_cfg": parameters.vision_cfg,
            "text_cfg": {**parameters.text_cfg, **text},
        },
        "preprocess_cfg": {
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
            "interpolation": "bicubic",
            "resize_mode": "shortest",
        },
    }


def text_encoder(model: open_clip.CLIP, tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """The text tower as the ``CLIPTextModel`` that a ``StableDiffusionPipeline`` holds."""
    width = model.ln_final.weight.shape[0]
    blocks = model.transformer.resblocks
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=len(blocks),
        num_attention_heads=blocks[0].attn.num_heads,
        max_position_embeddings=tokenizer.model_max_length,
        hidden_act="gelu",
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        projection_dim=model.text_projection.shape[1],
    )
    encoder = CLIPTextModel(config).eval()
    state = {
        "embeddings.token_embedding.weight": model.token_embedding.weight,
        "embeddings.position_embedding.weight": model.positional_embedding,
        **_parameters("final_layer_norm", model.ln_final),
    }
    for i, block in enumerate(blocks):
        prefix = f"encoder.layers.{i}"
        weights = block.attn.in_proj_weight.chunk(3)
        biases = block.attn.in_proj_bias.chunk(3)
        for name, weight, bias in zip(("q_proj", "k_proj", "v_proj"), weights, biases, strict=True):
            state[f"{prefix}.self_attn.{name}.weight"] = weight
            state[f"{prefix}.self_attn.{name}.bias"] = bias
        state |= _parameters(f"{prefix}.self_attn.out_proj", block.attn.out_proj)
        state |= _parameters(f"{prefix}.layer_norm1", block.ln_1)
        state |= _parameters(f"{prefix}.layer_norm2", block.ln_2)
        state |= _parameters(f"{prefix}.mlp.fc1", block.mlp.c_fc)
        state |= _parameters(f"{prefix}.mlp.fc2", block.mlp.c_proj)
    prefix = "text_model." if any(k.startswith("text_model.") for k in encoder.state_dict()) else ""
    state = {prefix + key: value.detach().clone() for key, value in state.items()}
    missing, unexpected = encoder.load_state_dict(state, strict=False)
    if unexpected or any("position_ids" not in key for key in missing):
        raise RuntimeError(f"text tower does not fit: missing {missing}, unexpected {unexpected}")
    return encoder


def _parameters(prefix: str, module: nn.Module) -> dict[str, Tensor]:
    return {f"{prefix}.{key}": value for key, value in module.named_parameters()}
