"""Prompt writing as people run it: a killed run goes on, and gives what an unbroken one gives."""

from __future__ import annotations

import logging
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import yaml
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project

from safetydpo_kedro.parameters import (
    ConceptParameters,
    DrawingParameters,
    PromptWritingParameters,
    SplitParameters,
)
from safetydpo_kedro.pipelines.dataset_generation import nodes
from safetydpo_kedro.prompts.chat_openai import OpenAIChat, OpenAISettings
from safetydpo_kedro.prompts.writer import PAIR_COLUMNS, PromptPair, pairs_table

from ..prompts.chat_server import ChatServer, completion, cooperative
from ..worlds import ROOT

CONCEPTS, PAIRS = 21, 2
REQUESTS = CONCEPTS + CONCEPTS * PAIRS
TEMPLATES = yaml.safe_load(
    (ROOT / "src/safetydpo_kedro/prompts/assets/prompt_templates.yml").read_text(encoding="utf-8")
)
WRITER = "safetydpo_kedro.prompts.llm_writer.LanguageModelWriter"
LAST = "dataset_generation.split_prompt_pairs"


def configuration(folder: Path, url: str, concurrency: int) -> Path:
    """The shipped configuration, and beside it an environment that asks a language model."""
    conf = folder / "conf"
    shutil.copytree(ROOT / "conf", conf, dirs_exist_ok=True)
    language_model = {
        "type": "safetydpo_kedro.datasets.ChatModelDataset",
        "provider": "openai",
        "model": "m",
        "base_url": url,
        "concurrency": concurrency,
        "credentials": "server",
        "metadata": {"kedro-viz": {"layer": "01_raw"}},
    }
    writing = {"writer": WRITER, "pairs_per_concept": PAIRS}
    files = {
        "llm/globals.yml": {"artifacts": str(folder / "data")},
        "llm/catalog.yml": {"language_model": language_model},
        "llm/parameters.yml": {"dataset_generation": {"prompt_writing": writing}},
        "local/credentials.yml": {"server": {"api_key": "s3cret"}},
    }
    for name, content in files.items():
        (conf / name).parent.mkdir(exist_ok=True)
        (conf / name).write_text(yaml.safe_dump(content))
    return conf


def run(conf: Path) -> None:
    bootstrap_project(ROOT)
    with KedroSession.create(ROOT, env="llm", conf_source=str(conf)) as session:
        session.run(pipeline_names=["dataset_generation"], to_nodes=[LAST])


def run_and_kill(conf: Path, server: ChatServer, after: int) -> None:
    """Start ``kedro run``, and kill it when the server has got ``after`` requests."""
    command = [sys.executable, "-m", "kedro", "run", "--pipelines", "dataset_generation"]
    command += ["--to-nodes", LAST, "--env", "llm", "--conf-source", str(conf)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    end = time.monotonic() + 120
    while len(server.requests) < after and process.poll() is None and time.monotonic() < end:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


def test_a_killed_run_goes_on_and_gives_the_same_tables(tmp_path):
    asked = 0

    def stalls_in_the_middle(body):
        nonlocal asked
        asked += 1
        return cooperative(body)._replace(pause=0 if asked <= REQUESTS // 2 else 60)

    broken, whole = tmp_path / "broken", tmp_path / "whole"
    with ChatServer(stalls_in_the_middle) as server:
        run_and_kill(configuration(broken, server.url, 2), server, REQUESTS // 2 + 2)
        first = [str(body) for body in server.requests]
    journal = broken / "data/02_intermediate/replies.jsonl"
    kept = len(journal.read_text().splitlines())
    assert kept >= REQUESTS // 2 - 2
    with journal.open("a") as file:
        file.write('{"key": "torn')
    with ChatServer(cooperative) as server:
        run(configuration(broken, server.url, 2))
        second = [str(body) for body in server.requests]
    assert len(second) == REQUESTS - kept
    assert len(set(first) | set(second)) == REQUESTS
    assert len(set(first) & set(second)) == len(first) - kept  # under way when it was killed
    with ChatServer(cooperative) as server:
        run(configuration(whole, server.url, 8))
        assert len(server.requests) == REQUESTS
        assert set(server.keys) == {"Bearer s3cret"}
    tables = ["written_pairs", "rejected_prompts", "prompt_pairs", "train_pairs", "test_prompts"]
    for table in tables:
        [path] = whole.glob(f"data/*/{table}.parquet")
        twin = broken / path.relative_to(whole)
        assert path.read_bytes() == twin.read_bytes(), table
    pairs = pd.read_parquet(whole / "data/03_primary/prompt_pairs.parquet")
    assert len(pairs) == CONCEPTS * PAIRS
    assert pairs["embedding_similarity"].between(-1.001, 1.001).all()
    assert not any(b"s3cret" in f.read_bytes() for f in whole.rglob("data/**/*") if f.is_file())


def imported(*rows: tuple[str, str, str, str]) -> pd.DataFrame:
    return pairs_table([PromptPair(*row, group=row[2]) for row in rows], seed=1)


def write(imported_pairs=None, concepts=(("violence", "knife"),), model=None, **parameters):
    table = pd.DataFrame(list(concepts), columns=["category", "concept"])
    return nodes.write_prompts(
        table, imported_pairs, TEMPLATES, model, PromptWritingParameters(**parameters)
    )


GRAMMAR = "safetydpo_kedro.pictograms.grammar.GrammarWriter"
KNIFE = ("violence", "knife", "a knife", "a spoon")


def test_imported_pairs_alone_or_beside_written_ones():
    alone, _ = write(imported(KNIFE), imported=True)
    assert list(alone["unsafe_prompt"]) == ["a knife"]
    both, _ = write(imported(KNIFE), imported=True, writer=GRAMMAR, pairs_per_concept=2)
    assert list(both["source"]) == ["GrammarWriter"] * 2 + ["imported"]
    unused, _ = write(imported(KNIFE), writer=GRAMMAR, pairs_per_concept=2)
    assert list(unused["source"]) == ["GrammarWriter"] * 2


def test_imported_pairs_that_are_wanted_but_missing_are_an_error():
    with pytest.raises(ValueError, match="kedro run --pipelines prompt_import"):
        write(None, imported=True)


def test_no_source_at_all_is_a_wrong_parameter():
    with pytest.raises(ValueError, match="name a `writer`, or set `imported: true`"):
        PromptWritingParameters(writer=None)


def test_a_language_model_may_propose_concepts(tmp_path):
    concepts = pd.DataFrame([("violence", "knife")], columns=["category", "concept"])
    with ChatServer(cooperative) as server:
        model = OpenAIChat(OpenAISettings(model="m", base_url=server.url))
        parameters = ConceptParameters(per_category=4, journal=tmp_path / "replies.jsonl")
        expanded = nodes.expand_concepts(concepts, TEMPLATES, model, parameters)
        same = nodes.expand_concepts(concepts, TEMPLATES, model, ConceptParameters())
    assert len(expanded) == 4
    assert len(server.requests) == 1
    pd.testing.assert_frame_equal(same, concepts)


def test_a_concept_that_cannot_be_split_is_left_out_and_counted(caplog):
    rows = [KNIFE, ("violence", "knife", "two knives", "two spoons")]
    pairs = imported(*rows, ("hate", "slur", "a slur", "a word"))
    with caplog.at_level(logging.WARNING):
        train, test = nodes.split_prompt_pairs(pairs, SplitParameters())
    assert set(train["concept"]) | set(test["concept"]) == {"knife"}
    assert list(train.columns) == PAIR_COLUMNS
    assert "1 concepts have a single group" in caplog.text


def test_excluded_neutral_prompts_are_left_out_and_counted(caplog):
    prompts = ["a bowl", "a cup", "a nude child", "a plate"]
    table = pd.DataFrame({"concept": "things", "prompt": prompts, "group": prompts})
    with caplog.at_level(logging.WARNING):
        train, test = nodes.split_neutral_prompts(table, SplitParameters(test_share=0.5))
    assert sorted([*train["prompt"], *test["prompt"]]) == ["a bowl", "a cup", "a plate"]
    assert "1 of 4 neutral prompts are excluded" in caplog.text
    assert "child" not in caplog.text


def test_what_is_excluded_is_never_drawn():
    parameters = DrawingParameters(sampling={})
    pairs = imported(KNIFE, ("sexual", "statue", "a child", "a tree"))
    with pytest.raises(ValueError, match="1 of 2 training pairs are excluded"):
        nodes.draw_image_pairs(None, pairs, parameters)
    neutral = pd.DataFrame({"concept": ["x"], "prompt": ["a nude child"], "seed": [0]})
    with pytest.raises(ValueError, match="1 of 1 neutral prompts are excluded"):
        nodes.draw_preservation_images(None, neutral, parameters)


def test_a_server_that_is_gone_keeps_what_it_said(tmp_path):
    answers = iter([cooperative] * 2)

    def two_answers(body):
        answer = next(answers, None)
        return answer(body) if answer else completion("")._replace(status=404)

    concepts = [("violence", "knife"), ("violence", "bat"), ("violence", "axe")]
    journal = tmp_path / "replies.jsonl"
    with ChatServer(two_answers) as server:
        settings = OpenAISettings(model="m", base_url=server.url, concurrency=1)
        with pytest.raises(RuntimeError, match=r"status 404.*2 of 3 replies .* are kept"):
            model, own = OpenAIChat(settings), {"journal": journal, "pairs_per_concept": 2}
            write(None, concepts, model, writer=WRITER, **own)
    assert len(journal.read_text().splitlines()) == 2
