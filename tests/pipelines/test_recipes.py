"""What the training of a recipe is given, and which recipes a change makes new."""

from __future__ import annotations

from types import SimpleNamespace

import pandas as pd
import pytest
import torch

from safetydpo_kedro.parameters import (
    CheckpointParameters,
    ExpertTrainingParameters,
    NoiseParameters,
)
from safetydpo_kedro.pipelines.ablations import recipes
from safetydpo_kedro.pipelines.ablations.parameters import SweepsParameters

TABLE = pd.DataFrame({"category": list("abab") * 2, "concept": list("xyxyzyzy")})
TRAINING = ExpertTrainingParameters(steps=7, checkpoints={"directory": "somewhere"})
NOISE = NoiseParameters(seed=3, draws=2)
ROWS = torch.arange(len(TABLE))
TENSORS = {
    "latent_cache": {"ids": ROWS},
    "preservation_cache": {"kept": torch.arange(3)},
    "reference_scores": {"reference_errors": ROWS.float()[:, None, None, None].repeat(1, 2, 2, 2)},
}
ARGUMENTS = (
    *("model", "table", "latents", "neutral", "scores", "foundation", "categories", "noise"),
    "parameters",
)
QUESTIONS = pd.DataFrame({"category": ["a", "a", "b"], "concept": ["x", "z", "y"]})
SWEEPS = {
    "shared_noise": {"shared": {}, "own": {"noise": {"shared": False}}},
    "concepts": {"1": {"data": {"concepts": 1}}},
    "beta": {"5": {"training": {"beta": 5.0}}},
}


@pytest.fixture
def trained(monkeypatch) -> list[SimpleNamespace]:
    """What trainings were asked for; whether they were told to clean up."""
    calls = []

    def train(*arguments):
        call = SimpleNamespace(cleaned=False, **dict(zip(ARGUMENTS, arguments, strict=True)))
        calls.append(call)
        yield "expert", pd.DataFrame({"implicit_accuracy": [0.0, 1.0]}), None
        call.cleaned = True

    monkeypatch.setattr(recipes, "train_safety_expert", train)
    monkeypatch.setattr(recipes, "make_look", lambda **_: lambda _: QUESTIONS.assign(image=b""))
    return calls


def plan(sweeps=SWEEPS, noise=NOISE, training=TRAINING, changes=None):
    judging = ("questions", "judge_clip", "q16_prompts", "judges", "verdicts", "checker", "drawing")
    return recipes.judge_recipes(
        base_model=None,
        train_pairs=TABLE,
        **TENSORS,
        **{**dict.fromkeys(judging), "questions": QUESTIONS},
        categories=["a"],
        parameters=training,
        changes=changes or {},
        noise=noise,
        sweeps=SweepsParameters.model_validate(sweeps),
        seed=51,
    )


def test_an_expert_is_trained_on_its_pairs_and_knows_those_of_the_others(trained):
    shards = {name: make() for name, make in plan().items()}
    assert next(iter(shards)) == "base" and len(shards) == 5 and len(trained) == 4
    default, _, concepts, beta = trained
    assert default.latents["ids"].tolist() == list(range(8))
    # One concept of `a` is trained on; all pairs of `b` are there to be left alone.
    assert concepts.latents["ids"].tolist() == [0, 1, 2, 3, 5, 7]
    assert concepts.table["concept"].tolist() == list("xyxyyy")
    assert concepts.table.index.tolist() == list(range(6))
    assert concepts.scores["reference_errors"][:, 0, 0, 0].tolist() == [0, 1, 2, 3, 5, 7]
    assert (beta.parameters.beta, default.parameters.beta) == (5.0, TRAINING.beta)
    for call in trained:
        assert call.parameters.seed == 51 and call.parameters.steps == 7
        assert call.categories == ["a"] and call.foundation is None
        assert call.neutral is TENSORS["preservation_cache"]
    folders = {call.parameters.checkpoints.directory for call in trained}
    assert len(folders) == 4 and all(folder.parts[0] == "somewhere" for folder in folders)


def test_images_are_told_what_their_expert_was_trained_on(trained):
    shards = [make() for make in plan().values()]
    base, default, _, concepts, _ = shards
    assert [table["own"].tolist() for table in shards] == [[True, True, False]] * 5
    assert not base["trained"].any() and base["implicit_accuracy"].isna().all()
    assert default["trained"].tolist() == [True, True, False]
    assert concepts["trained"].tolist() == [True, False, False]
    assert (default["implicit_accuracy"] == 1.0).all() and "image" not in default


def test_scores_of_the_reference_hold_for_the_noise_they_were_made_with(trained):
    for make in plan().values():
        make()
    draws = [call.scores["reference_errors"].shape[1] for call in trained]
    assert draws == [2, 0, 2, 2]
    # A bound on the draws repeats with the run's seed; without one every seed has its own noise.
    assert {call.noise.seed for call in trained} == {3}
    trained.clear()
    for make in plan(noise=NoiseParameters(seed=3)).values():
        make()
    assert {call.noise.seed for call in trained} == {51}


def test_checkpoints_stay_until_the_expert_was_judged(trained, monkeypatch, tmp_path):
    training = TRAINING.model_copy(update={"checkpoints": CheckpointParameters(directory=tmp_path)})
    name, make = list(plan(training=training).items())[1]

    def fail(*_):
        trained[-1].parameters.checkpoints.directory.mkdir(parents=True)
        raise RuntimeError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(recipes, "make_look", lambda **_: fail)
        with pytest.raises(RuntimeError, match="killed"):
            plan(training=training)[name]()
    assert not trained[-1].cleaned and trained[-1].parameters.checkpoints.directory.is_dir()
    make()
    assert trained[-1].cleaned and not list((tmp_path / "ablations").iterdir())


def test_a_new_arm_is_made_alone_and_a_changed_default_makes_all_anew():
    before = plan()
    added = {**SWEEPS, "rank": {"2": {"training": {"lora": {"rank": 2}}}}}
    after = plan(added)
    assert set(before) < set(after) and len(after) == len(before) + 1
    assert all(after.key_of[name] == key for name, key in before.key_of.items())
    renamed = plan({"beta": {"five": SWEEPS["beta"]["5"]}, "rank": {"4": {}}})
    assert set(renamed) < set(before)
    for other in (plan(changes={"steps": 8}), plan(noise=NOISE.model_copy(update={"seed": 4}))):
        assert set(other) & set(before) == {"base"}
        assert other.key_of["base"] == before.key_of["base"]
    elsewhere = CheckpointParameters(directory="elsewhere")
    moved = TRAINING.model_copy(update={"checkpoints": elsewhere, "num_processes": 2})
    assert plan(training=moved).key_of == before.key_of
    # What is covered is in the keys; everything else of the node makes all shards anew.
    assert set(before.covered) == {"parameters", "changes", "noise", "sweeps"}
