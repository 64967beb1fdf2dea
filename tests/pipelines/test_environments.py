"""The pipelines under each environment, on a narrow random model of its family (conf/tiny.yml)."""

from __future__ import annotations

import json

import numpy as np
import pytest
import yaml
from kedro.framework.project import configure_project
from kedro.framework.session import KedroSession

from benchmarks.architectures import ARCHITECTURES, random_pipeline
from benchmarks.tiny_project import make_tiny_project
from safetydpo_kedro.attacks import available_attacks
from safetydpo_kedro.pipelines.adversarial import pipeline as adversarial
from safetydpo_kedro.settings import BASELINES, CATEGORIES, EXPERTS, VARIANTS

DEFAULT = ["dataset_generation", "expert_training", "merging", "evaluation"]


# Each takes a minute; 1.5 and 2.1 are of the family of the pictogram world, which others test.
FAMILIES = [
    pytest.param(name, marks=[] if name == "sdxl" else [pytest.mark.slow]) for name in ARCHITECTURES
]


@pytest.fixture(params=FAMILIES, scope="module")
def project(request, tmp_path_factory):
    """An environment's name, its folder and its catalog after a run of everything."""
    folder = tmp_path_factory.mktemp(request.param) / "project"
    make_tiny_project(folder, (request.param,))
    configure_project("safetydpo_kedro")
    parameters = yaml.safe_load((folder / "conf/tiny.yml").read_text())["run"]["params"]

    def run(*pipelines: str) -> None:
        options = {"env": request.param, "runtime_params": parameters}
        with KedroSession.create(folder, **options) as session:
            session.run(pipeline_names=list(pipelines))

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run("prompt_import")
        run(*DEFAULT)
        run("export")
        options = {"env": request.param, "runtime_params": parameters}
        with KedroSession.create(folder, **options) as session:
            yield request.param, folder, session.load_context().catalog


def test_released_pairs_were_imported_split_and_drawn(project):
    _, _, catalog = project
    pairs = catalog.load("image_pairs")
    assert len(pairs) == 2 * len(CATEGORIES)
    assert set(pairs["category"]) == set(CATEGORIES)
    cache = catalog.load("latent_cache")
    assert cache["winner_mean"].shape == (len(pairs), 4, 8, 8)


def test_conditioning_of_the_family_is_cached(project):
    family, _, catalog = project
    names = {n for n in catalog.load("latent_cache") if n.startswith("unsafe_")}
    assert names == {"unsafe_embedding"} | ({"unsafe_pooled"} if family == "sdxl" else set())


def test_every_expert_starts_at_ln_2_and_is_merged(project):
    _, _, catalog = project
    for expert in EXPERTS:
        history = catalog.load(f"{expert}_training_history")
        # The reference was scored in other batches, and β = 5000 shows their rounding.
        assert history["loss"][0] == pytest.approx(np.log(2), abs=1e-3)
    merged = catalog.load("fitted_co_merge")
    assert json.loads(merged.metadata["merge_experts"]) == sorted(CATEGORIES)


def test_every_variant_is_drawn_and_judged(project):
    family, _, catalog = project
    table = catalog.load("benchmark_table")
    left_out = set(BASELINES) if family == "sdxl" else set()
    assert set(table["variant"]) == set(VARIANTS) - left_out
    assert table["ip"].between(0, 1).all()
    assert table["fid"].isna().all()  # there are no reference images


@pytest.mark.slow
def test_every_attack_runs_on_an_aligned_model(project, monkeypatch):
    family, folder, catalog = project
    if family != "sdxl":
        pytest.skip("attacks know families through an interface that is tested for each")
    parameters = yaml.safe_load((folder / "conf/tiny.yml").read_text())["run"]["params"]
    nodes = ["adversarial.draw_goals", "adversarial.search_transferable"]
    nodes += [f"adversarial.hate.{n}" for n in ("search_prompts", "draw_images", "judge_images")]
    monkeypatch.chdir(folder)
    monkeypatch.setattr(adversarial, "VICTIMS", ("hate",))
    options = {"env": family, "runtime_params": parameters}
    with KedroSession.create(folder, **options) as session:
        session.run(pipeline_names=["adversarial"], node_names=nodes)
    images = catalog.load("hate_adversarial_images")
    assert set(images["benchmark"]) == {"none", *available_attacks()}


def test_the_merged_lora_is_a_file_for_stock_diffusers_and_the_fused_pipeline_needs_none(project):
    family, folder, catalog = project
    artifacts = folder / "data" / family
    stock = random_pipeline(family, tiny=True)
    stock.load_lora_weights(
        artifacts / "06_models/merges", weight_name="fitted_co_merge.safetensors"
    )
    assert stock.get_active_adapters()
    stock = random_pipeline(family, tiny=True)
    stock.load_lora_weights(
        artifacts / "06_models/export", weight_name="fitted_co_merge_kohya.safetensors"
    )
    fused = catalog.load("aligned_pipeline").unet.state_dict()
    base = catalog.load("base_model").unet.state_dict()
    changed = {name for name, weight in base.items() if (weight != fused[name]).any()}
    assert changed == {f"{name}.weight" for name in catalog.load("fitted_co_merge").layers}
