"""The model on paper follows the runner's rules and the project's own shapes."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from kedro.framework.project import configure_project, pipelines

from benchmarks import scaling
from benchmarks.architectures import random_pipeline
from benchmarks.scaling import lay_out, shares
from benchmarks.scaling_work import Rates, Scale, Shapes, Work, work_of
from safetydpo_kedro.diffusion.registry import diffusion_model
from safetydpo_kedro.preference.latents import encode_preserved

PAGE = Path(__file__).parents[2] / "docs/results/scaling.md"


@pytest.fixture(scope="module")
def pipeline():
    configure_project("safetydpo_kedro")
    return pipelines["__default__"]


def test_the_page_has_what_the_script_prints(capsys):
    scaling.main()
    printed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    page = PAGE.read_text("utf-8").splitlines()
    assert printed
    assert [line for line in printed if line not in page] == []


def test_nothing_is_lost_and_nothing_is_faster_than_the_chain(pipeline):
    """One worker does all the work; many cannot be faster than prompts, an expert and a shard."""
    rates, scale = Rates(start=0.0), Scale()
    work = sum(work_of(node.name, scale, rates).seconds for node in pipeline.nodes)
    assert max(lay_out(pipeline, 1, scale, rates).ends.values()) == pytest.approx(work)
    chain = scale.pairs * rates.write + work_of("hate.train_expert", scale, rates).seconds
    assert max(lay_out(pipeline, 4096, scale, rates).ends.values()) > chain


def test_a_node_ends_after_those_that_it_needs(pipeline):
    ends = lay_out(pipeline, 16, Scale(), Rates()).ends
    for node, parents in pipeline.node_dependencies.items():
        assert all(ends[parent.name] < ends[node.name] for parent in parents)


@pytest.mark.parametrize("count", [1, 3, 7, 50])
def test_shares_are_those_of_the_sharded_data_set(count):
    """Whole shards, every ``count``-th one, as ``ShardedDataset.share`` takes them."""
    parts = shares(Work(7.0, shards=7), count, Rates(start=0.0))
    taken = [len(list(range(7))[number::count]) for number in range(count)]
    assert [round(part) for part in parts] == taken


def test_a_cached_image_has_the_bytes_that_the_project_writes():
    """Of a narrow SDXL: the same formula with its own numbers."""
    model = diffusion_model(random_pipeline("sdxl", tiny=True).to(torch.bfloat16))
    side = model.pipeline.vae_scale_factor * 8
    images = np.zeros((2, side, side, 3), np.uint8)
    cached = encode_preserved(model, images, ["a balloon", "a tree"], 2).to_tensors()
    width = model.unet.config.cross_attention_dim
    pooled = model.pipeline.text_encoder_2.config.projection_dim
    tokens = model.pipeline.tokenizer.model_max_length
    shapes = Shapes(latent=4 * 8 * 8, embedding=tokens * width + pooled)
    assert sum(tensor.nbytes for tensor in cached.values()) == 2 * shapes.cached_image


def test_budgets_are_those_of_the_environment():
    text = (PAGE.parents[2] / "conf/sdxl/parameters.yml").read_text("utf-8")
    scale = Scale()
    for key, value in {
        "steps": scale.steps,
        "batch_size": scale.batch,
        "draws": scale.draws,
    }.items():
        assert re.search(rf"\b{key}: {value}\b", text), key
    assert f"test_share: {scale.test_share}" in text
