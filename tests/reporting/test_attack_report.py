"""Tables, chart and grid of attacks."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from safetydpo_kedro.images import encode_images
from safetydpo_kedro.metrics.config import BootstrapConfig
from safetydpo_kedro.reporting.attack_report import attack_figure, attack_grid, attack_table
from safetydpo_kedro.reporting.hardening_report import hardening_table

QUICK = BootstrapConfig(resamples=20)
GOALS = ["a", "b", "c"]


@pytest.fixture
def scores():
    rows = []
    for variant, successes in {"base": 3, "aligned": 1}.items():
        for attack in ("none", "p4d", "ring_a_bell"):
            for i, goal in enumerate(GOALS):
                bad = i < successes and (variant == "base" or attack == "p4d")
                rows.append(
                    {
                        "variant": variant,
                        "benchmark": attack,
                        "source": "unsafe",
                        "prompt_id": goal,
                        "prompt": f"picture of {goal}",
                        "trial": 0,
                        "inappropriate": bad,
                    }
                )
    return pd.DataFrame(rows)


@pytest.fixture
def prompts():
    rows = []
    for variant, attack, images in [
        ("any", "ring_a_bell", 0),
        ("base", "p4d", 4),
        ("aligned", "p4d", 10),
    ]:
        for i in range(3):
            rows.append(
                {
                    "variant": variant,
                    "attack": attack,
                    "images": images + i,
                    "gradients": 7,
                    "evaluations": 100,
                    "withheld": i == 0 and variant == "any",
                }
            )
    return pd.DataFrame(rows)


def test_costs_stand_beside_success(scores, prompts):
    table = attack_table(scores, prompts, QUICK).set_index(["variant", "attack"])
    assert table.loc[("base", "p4d"), "images"] == 5
    assert table.loc[("aligned", "p4d"), "images"] == 11
    for variant in ("base", "aligned"):
        ring = table.loc[(variant, "ring_a_bell")]
        assert (ring["images"], ring["gradients"], ring["withheld"]) == (1, 7, 1)
        together = table.loc[(variant, "all together")]
        assert together["evaluations"] == 200 and together["withheld"] == 1
    assert table.loc[("aligned", "p4d"), "asr"] == pytest.approx(1 / 3)


def test_the_chart_starts_without_an_attack(scores, prompts):
    figure = attack_figure(attack_table(scores, prompts, QUICK))
    assert [bar.name for bar in figure.data] == ["base", "aligned"]
    assert figure.data[1].x[0] == "no attack" and figure.data[1].y[0] == 0
    assert dict(zip(figure.data[1].x, figure.data[1].y, strict=True))["p4d"] == pytest.approx(1 / 3)


def test_bars_are_hits_where_they_are_known_and_circles_any_verdict(scores, prompts):
    wrong = scores.assign(concept_correct=(scores["prompt_id"] == "a").astype(float))
    bars, circles = attack_figure(attack_table(wrong, prompts, QUICK)).data[:2]
    assert bars.type == "bar" and bars.y[0] == pytest.approx(1 / 3)
    assert circles.type == "scatter" and circles.y[0] == 1


def test_the_grid_blurs_by_default_and_leaves_withheld_prompts_white(scores):
    stripes = np.zeros((len(scores), 32, 32, 3), np.uint8)
    stripes[:, :, ::2] = 255
    images = scores.assign(image=encode_images(stripes, [str(i) for i in range(len(scores))]))
    images = images.drop(index=images.index[-1])

    def contrast(figure):
        (shown,) = [image.get_array() for image in figure.axes[0].images]
        cell = shown[60:90, 150:200]
        return cell.astype(int).std()

    assert contrast(attack_grid(images)) < contrast(attack_grid(images, blur="none")) / 5
    labels = {text.get_text() for text in attack_grid(images).axes[0].texts}
    assert {"base", "base\np4d", "aligned\nring_a_bell"} <= labels


def test_hardening_shows_gain_and_loss_side_by_side(scores, prompts):
    judged = pd.DataFrame(
        {
            "variant": ["base"] * 4 + ["aligned"] * 4,
            "benchmark": ["unsafe", "unsafe", "safe", "neutral"] * 2,
            "inappropriate": [True, True, False, False, True, False, False, False],
            "concept_correct": [1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 1.0],
        }
    )
    table = hardening_table(judged, attack_table(scores, prompts, QUICK)).set_index("variant")
    assert table["ip"].to_dict() == {"base": 1.0, "aligned": 0.5}
    assert table.loc["aligned", "asr_p4d"] == pytest.approx(1 / 3)
    assert table.loc["aligned", "asr_ring_a_bell"] == 0
    assert table["concept_correct_safe"].to_dict() == {"base": 1.0, "aligned": 0.0}
    assert table["concept_correct_neutral"].to_dict() == {"base": 1.0, "aligned": 1.0}
