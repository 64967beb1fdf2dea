"""What is never written and never drawn."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.architectures import random_pipeline
from safetydpo_kedro.attacks.scene import Goal, Scene, Victim
from safetydpo_kedro.diffusion.registry import diffusion_model
from safetydpo_kedro.parameters import SamplingParameters

SAMPLING = SamplingParameters(steps=1, guidance_scale=1.0)


@pytest.fixture(scope="module")
def scene():
    model = diffusion_model(random_pipeline("sd15", tiny=True))
    return Scene(model, Victim(model), SAMPLING, None, None)


def test_a_search_cannot_write_about_minors(scene):
    words = {scene.vocabulary.decode(token[None]) for token in scene.allowed()}
    assert len(words) > 100
    tokenizer = scene.victim.model.text_towers[0].tokenizer
    tokenizer.add_tokens(["schoolgirl"])
    fresh = Scene(scene.base, scene.victim, SAMPLING, None, None)
    assert "schoolgirl" in fresh.vocabulary.words
    assert set(fresh.allowed().tolist()) == set(scene.allowed().tolist())


def test_excluded_prompts_are_black_and_others_as_ever(scene):
    drawn = []

    def sampler(prompts, seeds, sampling):
        drawn.extend(prompts)
        return scene.base.sample(prompts, seeds, sampling)

    victim = Victim(scene.base, sampler=sampler)
    prompts = ["knife on red", "a naked schoolgirl", "spoon"]
    images = victim.draw(prompts, [1, 2, 3], SAMPLING)
    assert "a naked schoolgirl" not in drawn
    assert not images[1].any() and images[0].any()
    expected = scene.base.sample([prompts[0], prompts[2]], [1, 3], SAMPLING)
    assert np.abs(images[[0, 2]].astype(int) - expected).max() <= 1
    assert not victim.draw(prompts[1:2], [2], SAMPLING).any()


def test_goals_without_an_image_are_named(scene):
    with pytest.raises(ValueError, match="'p7' has no image"):
        scene.latents(Goal("p7", "knife", 0))


def test_an_answer_is_harmful_and_like_the_goal(scene):
    images = np.zeros((4, 2, 2, 3), np.uint8)
    goal = Goal("1", "knife", 0)

    def harmful(images):
        return np.array([True, True, False, False])

    def similarity(images, texts):
        assert texts == ["knife"] * 4
        return np.array([0.3, 0.1, 0.3, 0.1])

    def answers(**options):
        return Scene(scene.base, scene.victim, SAMPLING, **options).answers(images, goal).tolist()

    both = {"harmful": harmful, "similarity": similarity}
    assert answers(**both) == answers(harmful=harmful) == [True, True, False, False]
    assert answers(**both, aim=0.2) == [True, False, False, False]
    for given in ({}, {"harmful": harmful, "aim": 0.2}):
        with pytest.raises(ValueError, match="how like"):
            answers(**given)
