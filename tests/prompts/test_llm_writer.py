"""The writer against a real server, and against models that answer badly."""

from __future__ import annotations

import json
import logging
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import yaml

from safetydpo_kedro.prompts.chat import FILTERED, ChatReply, ChatRequest
from safetydpo_kedro.prompts.chat_openai import OpenAIChat, OpenAISettings
from safetydpo_kedro.prompts.journal import ReplyJournal
from safetydpo_kedro.prompts.llm_writer import LanguageModelWriter
from safetydpo_kedro.prompts.templates import read_templates
from safetydpo_kedro.prompts.writer import PromptPair, RejectedPrompt, load_writer, source_name

from .chat_server import ChatServer, cooperative

TEMPLATES = read_templates(
    yaml.safe_load(
        (
            Path(__file__).parents[2] / "src/safetydpo_kedro/prompts/assets/prompt_templates.yml"
        ).read_text()
    )
)
CONCEPTS = [("violence", "knife"), ("illegal_activity", "counterfeit money")]


class Scripted:
    """A model that answers by a function of concept, unsafe prompt or None, and seed.

    Replies come in random order.
    """

    def __init__(self, answer: Callable[[str, str | None, int], str], shuffle: int = 0) -> None:
        self.identity = {"model": "scripted"}
        self.answer = answer
        self.asked: list[ChatRequest] = []
        self.random = random.Random(shuffle)

    def complete(self, requests: Sequence[ChatRequest]) -> Iterator[ChatReply]:
        for request in self.random.sample(list(requests), len(requests)):
            self.asked.append(request)
            user = request.messages[1].content
            concept = re.search(r'(?:image|nothing) of "(.*?)"', user)[1]
            unsafe = re.search(r'Prompt: "(.*?)"\. Answer', user)
            text = self.answer(concept, unsafe and unsafe[1], request.seed)
            finish = FILTERED if text == FILTERED else "stop"
            yield ChatReply(request, "" if finish == FILTERED else text, finish)


def write(model, folder, concepts=CONCEPTS, pairs=3, seed=0, **arguments):
    """Pairs, and rejected prompts."""
    journal = ReplyJournal(folder / "replies.jsonl")
    writer = LanguageModelWriter(model, TEMPLATES, journal, **arguments)
    outcomes = list(writer.write(concepts, pairs, seed))
    pairs = [o for o in outcomes if isinstance(o, PromptPair)]
    return pairs, [o for o in outcomes if isinstance(o, RejectedPrompt)]


def good(concept, unsafe, seed):
    if unsafe is None:
        return json.dumps([f"{concept} {seed % 1000} {i}" for i in range(10)])
    return json.dumps([unsafe.replace(concept, "flower")])


def test_a_server_is_asked_for_every_concept_and_every_counterpart(tmp_path):
    with ChatServer(cooperative) as server:
        model = OpenAIChat(OpenAISettings(model="m", base_url=server.url))
        pairs, rejected = write(model, tmp_path, pairs=5, prompts_per_request=2)
    assert len(server.requests) == 2 * 3 + 2 * 5
    assert Counter(pair.concept for pair in pairs) == {"knife": 5, "counterfeit money": 5}
    assert rejected == []
    for pair in pairs:
        assert (pair.category, pair.concept) in CONCEPTS
        assert pair.safe_prompt == pair.unsafe_prompt.replace(pair.concept, "paper flower")
        assert pair.group == pair.unsafe_prompt
    assert len({pair.unsafe_prompt for pair in pairs}) == len(pairs)
    counts = [re.search(r"Write (\d+)", r["messages"][1]["content"]) for r in server.requests]
    assert sorted(int(c[1]) for c in counts if c) == [1, 1, 2, 2, 2, 2]


def test_the_result_does_not_depend_on_the_order_of_the_replies(tmp_path):
    results = [write(Scripted(good, i), tmp_path / str(i), pairs=15) for i in range(4)]
    assert all(result == results[0] for result in results)
    assert write(Scripted(good), tmp_path / "seed", pairs=15, seed=1) != results[0]


def test_a_longer_list_keeps_what_is_journaled(tmp_path):
    write(Scripted(good), tmp_path, pairs=10, prompts_per_request=5)
    model = Scripted(good)
    pairs, _ = write(model, tmp_path, pairs=20, prompts_per_request=5)
    assert len(pairs) == 40
    assert len(model.asked) == 2 * (2 + 10)


def test_what_lacks_is_asked_for_again_and_known_prompts_are_named(tmp_path):
    def stingy(concept, unsafe, seed):
        return good(concept, unsafe, seed) if unsafe else json.dumps([f"{concept} {seed % 1000}"])

    model = Scripted(stingy)
    pairs, rejected = write(model, tmp_path, CONCEPTS[:1], pairs=3, max_rounds=5)
    assert len(pairs) == 3
    assert rejected == []
    assert pairs[0].unsafe_prompt in model.asked[1].messages[1].content
    assert "Write 2 " in model.asked[1].messages[1].content


def test_rounds_are_bounded_and_a_short_concept_is_a_warning(tmp_path, caplog):
    def one(concept, unsafe, seed):
        if concept == "knife":
            return good(concept, unsafe, seed)
        return '["a red spoon"]' if unsafe else f'["{concept} on a table"]'

    model = Scripted(one)
    with caplog.at_level(logging.WARNING):
        pairs, rejected = write(model, tmp_path, max_rounds=3)
    assert Counter(pair.concept for pair in pairs) == {"knife": 3, "counterfeit money": 1}
    assert [(r.reason, r.concept) for r in rejected] == [("duplicate", "counterfeit money")] * 2
    assert "1 of 2 concepts have fewer than 3 pairs" in caplog.text
    assert "illegal_activity/counterfeit money (1)" in caplog.text


def test_a_counterpart_that_is_none_is_rejected_and_asked_for_again(tmp_path):
    tries = Counter()

    def answer(concept, unsafe, seed):
        if unsafe is None:
            return json.dumps(["a knife on a table", "a knife in the hand", "one knife, drawn"])
        tries[unsafe] += 1
        if unsafe.startswith("a knife on"):
            return json.dumps([unsafe.upper() + "!"]) if tries[unsafe] == 1 else '["a spoon"]'
        if unsafe.startswith("a knife in"):
            return "I'm sorry, but I can't help with that."
        return FILTERED if tries[unsafe] < 3 else "A pencil, drawn"

    pairs, rejected = write(Scripted(answer), tmp_path, CONCEPTS[:1], max_rounds=3)
    assert [(p.unsafe_prompt, p.safe_prompt) for p in pairs] == [
        ("a knife on a table", "a spoon"),
        ("one knife, drawn", "A pencil, drawn"),
    ]
    assert Counter(r.reason for r in rejected) == {"copy": 1, "refusal": 5, "no_counterpart": 1}
    assert [r.prompt for r in rejected if r.reason == "no_counterpart"] == ["a knife in the hand"]
    assert all(r.source == "language_model" for r in rejected)


def test_excluded_text_is_neither_used_nor_asked_about_nor_kept(tmp_path):
    def answer(concept, unsafe, seed):
        if unsafe is None:
            return '["a statue in a park", "a child in a park"]'
        return '["a tree in a park"]'

    model = Scripted(answer)
    concepts = [("sexual", "statue"), ("sexual", "a child")]
    pairs, rejected = write(model, tmp_path, concepts, pairs=2, max_rounds=1)
    assert [pair.unsafe_prompt for pair in pairs] == ["a statue in a park"]
    assert {(r.concept, r.prompt, r.reason) for r in rejected} == {
        ("statue", None, "excluded"),
        ("a child", None, "excluded"),
    }
    assert all("child" not in m.content for r in model.asked for m in r.messages)
    assert "child" not in (tmp_path / "replies.jsonl").read_text()


def test_nothing_at_all_is_an_error_that_counts_and_quotes_nothing(tmp_path):
    model = Scripted(lambda *_: "I cannot do that.")
    with pytest.raises(ValueError, match=r"any of 2 concepts \(rejected: refusal 6\)") as error:
        write(model, tmp_path)
    assert "cannot do" not in str(error.value)


def test_it_is_built_by_its_name_with_the_resources_it_asks_for(tmp_path):
    path = "safetydpo_kedro.prompts.llm_writer.LanguageModelWriter"
    resources = {
        "model": Scripted(good),
        "templates": TEMPLATES,
        "journal": ReplyJournal(tmp_path / "replies.jsonl"),
    }
    writer = load_writer(path, {"max_rounds": 1}, resources)
    assert len([*writer.write(CONCEPTS, 2, 0)]) == 4
    assert source_name(writer) == "language_model"
    with pytest.raises(ValueError, match="did you mean 'max_rounds'"):
        load_writer(path, {"max_round": 1}, resources)
    grammar = load_writer("safetydpo_kedro.pictograms.grammar.GrammarWriter", {}, resources)
    assert source_name(grammar) == "GrammarWriter"
