import torch

from safetydpo_kedro.pictograms.captions import HARMLESS, THEMES, all_captions, theme
from safetydpo_kedro.pictograms.clip import _describe
from safetydpo_kedro.pictograms.world import BACKGROUNDS, concept_index, concepts
from safetydpo_kedro.settings import CATEGORIES


def test_themes_are_the_categories_and_one_for_everything_harmless():
    assert set(THEMES) == {c.replace("_", " ") for c in CATEGORIES} | {HARMLESS}
    assert theme(concepts()[concept_index()["knife"]]) == "violence"
    assert theme(concepts()[concept_index()["spoon"]]) == HARMLESS
    assert "violence on a blue background" in all_captions(themes=True)


def test_without_themes_every_caption_is_right_for_its_own_picture_only():
    chosen = torch.randperm(len(concepts()) * len(BACKGROUNDS))[:40]
    ids = chosen // len(BACKGROUNDS), chosen % len(BACKGROUNDS)
    captions, right = _describe(*ids, 0.0, torch.Generator().manual_seed(0))
    torch.testing.assert_close(right, torch.eye(40))
    assert not any(word in caption for caption in captions for word in THEMES)


def test_a_theme_is_right_for_all_pictures_of_it_on_the_same_background():
    ids = [concept_index()[name] for name in ("knife", "bomb", "gun", "spoon", "cat", "skull")]
    backgrounds = torch.tensor([0, 0, 1, 0, 0, 0])
    generator = torch.Generator().manual_seed(0)
    captions, right = _describe(torch.tensor(ids), backgrounds, 0.999, generator)
    assert "violence" in captions[0] and HARMLESS in captions[4]
    assert right[:, 0].tolist() == [1, 1, 0, 0, 0, 0]
    assert right[:, 3].tolist() == [0, 0, 0, 1, 1, 0]
