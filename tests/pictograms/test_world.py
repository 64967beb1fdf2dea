from collections import Counter

import pytest
import torch

from safetydpo_kedro.pictograms.captions import all_captions
from safetydpo_kedro.pictograms.grammar import (
    GrammarWriter,
    concept_table,
    describe,
    neutral_prompt_table,
)
from safetydpo_kedro.pictograms.world import (
    BACKGROUNDS,
    concept_index,
    concepts,
    draw,
    draw_random,
    draw_reference,
)
from safetydpo_kedro.prompts.writer import PromptWriter
from safetydpo_kedro.settings import CATEGORIES


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_every_category_has_three_unsafe_concepts_with_safe_mates_and_names():
    table = {c.concept: c for c in concepts()}
    unsafe = [c for c in concepts() if c.role == "unsafe"]
    assert all(n >= 3 for n in Counter(c.category for c in unsafe).values())
    assert {c.category for c in unsafe} == set(CATEGORIES)
    for concept in unsafe:
        mate = table[concept.mate]
        assert (mate.role, mate.mate, mate.category) == ("safe", concept.concept, concept.category)
        assert len(concept.names) == len(mate.names) >= 2
    assert sum(c.role == "neutral" for c in concepts()) >= 24
    assert len(BACKGROUNDS) == 8
    names = [name for c in concepts() for name in c.names]
    assert len(set(names)) == len(names)


def test_drawing_is_seeded_and_varies():
    ids, colours = torch.full((6,), concept_index()["bomb"]), torch.zeros(6, dtype=torch.int64)
    images = draw(ids, colours, generator(1))
    assert images.shape == (6, 32, 32, 3)
    assert images.dtype == torch.uint8
    assert torch.equal(images, draw(ids, colours, generator(1)))
    assert len({image.numpy().tobytes() for image in images}) == 6


@pytest.mark.parametrize("colour", range(len(BACKGROUNDS)))
def test_the_background_has_its_colour(colour):
    images = draw(torch.arange(8), torch.full((8,), colour), generator())
    corner = images[:, 0, 0].float()
    expected = torch.tensor(list(BACKGROUNDS.values())[colour]).float()
    assert (corner - expected).abs().max() <= 7


def test_a_distinct_batch_repeats_no_concept_on_the_same_background():
    _, concept_ids, background_ids = draw_random(200, generator(), distinct=True)
    assert len(set(zip(concept_ids.tolist(), background_ids.tolist(), strict=True))) == 200


def test_reference_images_cover_the_three_benchmarks():
    table = draw_reference(5, seed=0)
    assert table.groupby("benchmark").size().to_dict() == {"neutral": 5, "safe": 5, "unsafe": 5}


def test_the_grammar_writes_distinct_pairs_that_it_understands_itself():
    writer = GrammarWriter()
    assert isinstance(writer, PromptWriter)
    rows = list(concept_table().itertuples(index=False, name=None))
    pairs = list(writer.write(rows, 72, seed=0))
    assert len({pair.unsafe_prompt for pair in pairs}) == len(pairs) == 21 * 72
    for pair in pairs:
        unsafe, safe = describe(pair.unsafe_prompt), describe(pair.safe_prompt)
        assert unsafe is not None
        assert safe is not None
        assert unsafe[0] == pair.concept
        assert concepts()[concept_index()[pair.concept]].mate == safe[0]
        assert unsafe[1] == safe[1]
    assert list(writer.write(rows, 5, seed=0)) == list(writer.write(rows, 5, seed=0))


def test_an_unknown_concept_is_an_error_that_names_it():
    with pytest.raises(ValueError, match="no concept 'dragon'"):
        list(GrammarWriter().write([("violence", "dragon")], 1, seed=0))


def test_captions_are_unique_and_neutral_prompts_are_among_them():
    captions = all_captions()
    assert len(set(captions)) == len(captions)
    assert set(neutral_prompt_table()["prompt"]) <= set(captions)
    assert describe("something else") is None
