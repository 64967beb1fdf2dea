"""Canaries in place of keys and passwords: they go where they must, and are seen nowhere else."""

from __future__ import annotations

import logging
import traceback
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from kedro.framework.project import configure_project
from kedro.pipeline import Node, Pipeline

from safetydpo_kedro import pipeline_registry
from safetydpo_kedro.datasets import ChatModelDataset, DiffusionPipelineDataset
from safetydpo_kedro.prompts.chat import ChatRequest, Message
from safetydpo_kedro.prompts.journal import ReplyJournal
from safetydpo_kedro.trust import HIDDEN, has_login, without_secrets

from ..prompts.chat_server import Answer, ChatServer, completion
from ..small_project import Project

CANARY = "canary-5f0c2a77"
REQUESTS = [ChatRequest((Message("user", f"question {i}"),), seed=i) for i in range(2)]


def ask(language_model, log: str) -> dict:
    journal = ReplyJournal(Path(log).with_name("replies.jsonl"))
    return {"replies": [reply.text for reply in journal.complete(language_model, REQUESTS)]}


def copy(remote, log: str):
    return remote


@pytest.fixture
def project(tmp_path, monkeypatch) -> Project:
    """A project with a node that asks a language model, and one that reads from a bucket."""
    talk = Pipeline([Node(ask, ["language_model", "params:log"], "answers", name="ask")])
    fetch = Pipeline([Node(copy, ["remote", "params:log"], "local", name="copy")])
    registered = {"talk": talk, "fetch": fetch, "__default__": talk}
    monkeypatch.setattr(pipeline_registry, "register_pipelines", lambda: registered)
    monkeypatch.chdir(tmp_path)
    configure_project("safetydpo_kedro")
    return Project(tmp_path / "project")


def configure(project: Project, credentials: dict, **entries: dict) -> None:
    answers = {"type": "kedro_datasets.json.JSONDataset", "filepath": "data/answers.json"}
    local = {"type": "pandas.CSVDataset", "filepath": "data/local.csv"}
    catalog = {"answers": answers, "local": local, **entries}
    (project.path / "conf/base/catalog_own.yml").write_text(yaml.safe_dump(catalog))
    (project.path / "conf/local/credentials.yml").write_text(yaml.safe_dump(credentials))


def talk(project: Project, url: str, key: str = CANARY, **settings) -> list[str]:
    entry = {
        "type": "safetydpo_kedro.datasets.ChatModelDataset",
        "provider": "openai",
        "model": "m",
        "base_url": url,
        "credentials": "server",
        "max_retries": 0,
        **settings,
    }
    configure(project, {"server": {"api_key": key}}, language_model=entry)
    return project.run("talk")


def assert_unseen(project: Project, caplog, capfd, error: BaseException | None = None) -> None:
    """The canary is in no log line, output, error with all that is printed of it, or file."""
    printed = "".join(traceback.format_exception(error)) if error else ""
    out, err = capfd.readouterr()
    records = "".join(
        record.getMessage() + (logging.Formatter().formatException(record.exc_info) or "")
        if record.exc_info
        else record.getMessage()
        for record in caplog.records
    )
    for text in (printed, out, err, records):
        assert CANARY not in text
    for path in project.path.rglob("*"):
        if path.is_file() and path.name != "credentials.yml":
            assert CANARY.encode() not in path.read_bytes(), path


def test_a_key_is_sent_and_left_in_no_artifact_manifest_or_log(project, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    with ChatServer(lambda body: completion("an answer")) as server:
        assert talk(project, server.url) == []
        assert set(server.keys) == {f"Bearer {CANARY}"}
    assert (project.data / "answers.json.manifest.json").is_file()
    assert_unseen(project, caplog, capfd)


QUOTED = Answer(f'{{"error": {{"message": "Incorrect API key provided: {CANARY}"}}}}', status=401)


@pytest.mark.parametrize(
    "answer",
    [
        QUOTED,
        QUOTED._replace(status=400),
        QUOTED._replace(status=500),
        QUOTED._replace(status=200),
        Answer(f"not JSON: {CANARY}"),
        Answer(f"{CANARY} " * 100, status=403),
        Answer("{}", pause=2.0),
    ],
)
def test_a_server_that_quotes_the_key_is_not_repeated(project, caplog, capfd, answer):
    caplog.set_level(logging.DEBUG, "safetydpo_kedro")
    caplog.set_level(logging.INFO, "kedro")
    with ChatServer(lambda body: answer) as server, pytest.raises(Exception) as error:
        talk(project, server.url, timeout=0.5)
    assert "language model 'm'" in str(error.value)
    assert_unseen(project, caplog, capfd, error.value)


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/v1", "nonsense", "http://[::1/v1"])
def test_an_address_that_does_not_work_shows_no_key(project, caplog, capfd, url):
    with pytest.raises(Exception) as error:
        talk(project, url)
    assert_unseen(project, caplog, capfd, error.value)


@pytest.mark.parametrize(
    ("key", "settings"),
    [
        (f"{CANARY}\nsecond line", {}),
        (f"{CANARY}é", {}),
        ("k", {"api_key": CANARY}),
        ("k", {"apikey": CANARY, "temperature": -1}),
        ("k", {"base_url": f"http://me:{CANARY}@127.0.0.1:9/v1"}),
        ("k", {"base_url": f"http://{CANARY}@127.0.0.1:9/v1"}),
    ],
)
def test_a_secret_in_the_wrong_place_is_refused_unseen(project, caplog, capfd, key, settings):
    with pytest.raises(Exception, match=r"conf/local/credentials\.yml") as error:
        talk(project, **{"url": "http://127.0.0.1:9/v1", "key": key, **_renamed(settings)})
    printed = "".join(traceback.format_exception(error.value))
    out, err = capfd.readouterr()
    assert CANARY not in printed + out + err + caplog.text


def _renamed(settings: dict) -> dict:
    return {{"base_url": "url"}.get(name, name): value for name, value in settings.items()}


def test_keys_of_a_bucket_are_left_nowhere(project, caplog, capfd):
    pytest.importorskip("s3fs")
    configure(
        project,
        {
            "bucket": {
                "key": f"{CANARY}-id",
                "secret": CANARY,
                "client_kwargs": {"endpoint_url": "http://127.0.0.1:9"},
                "config_kwargs": {"retries": {"max_attempts": 1}, "connect_timeout": 1},
            }
        },
        remote={
            "type": "pandas.CSVDataset",
            "filepath": "s3://bucket/words.csv",
            "credentials": "bucket",
        },
    )
    with pytest.raises(Exception, match=r"s3://bucket|words") as error:
        project.run("fetch")
    assert_unseen(project, caplog, capfd, error.value)


class Hub:
    """A hub that refuses every token, and quotes it."""

    def __enter__(self) -> Hub:
        tokens: list[str | None] = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                tokens.append(self.headers["Authorization"])
                body = f"Invalid token {self.headers['Authorization']}".encode()
                self.send_response(401)
                self.send_header("X-Error-Message", "Invalid credentials in Authorization header")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args) -> None:
                pass

            do_HEAD = do_GET

        self.tokens = tokens
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.mark.slow
def test_a_token_of_the_hub_is_sent_and_shown_nowhere(monkeypatch, caplog, capfd, tmp_path):
    from huggingface_hub import constants, hf_api

    monkeypatch.setenv("HF_TOKEN", f"hf_{CANARY}")
    dataset = DiffusionPipelineDataset(hub_id="owner/model", revision="0" * 40, device="cpu")
    with Hub() as hub:
        monkeypatch.setattr(hf_api.api, "endpoint", hub.url)
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        with pytest.raises(Exception, match="owner/model") as error:
            dataset.load()
        assert f"Bearer hf_{CANARY}" in hub.tokens
    printed = "".join(traceback.format_exception(error.value))
    out, err = capfd.readouterr()
    assert CANARY not in printed + out + err + caplog.text + repr(dataset)


def test_a_chat_model_shows_its_key_in_no_form():
    import copy as copies

    entry = {"provider": "openai", "model": "m", "credentials": {"api_key": CANARY}}
    dataset = ChatModelDataset(**entry)
    shown = [dataset, dataset.load(), dataset.fingerprint_options, copies.copy(dataset)]
    assert not any(CANARY in f"{it!r} {it}" for it in [*shown, dataset.load().identity])


NAMES = st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1)


@settings(deadline=None)
@given(NAMES, NAMES, st.sampled_from(["http", "https", "postgresql+psycopg2", "s3"]))
def test_logins_of_addresses_are_hidden_and_all_else_stays(user, password, scheme):
    address = f"{scheme}://{user}:{password}@host:1/path?a=b"
    text = f"cannot reach {address} ({scheme}://host:1/path), me@host"
    shown = without_secrets(text)
    assert shown == text.replace(f"{user}:{password}@host", f"{HIDDEN}@host")
    assert has_login(address) and not has_login(f"{scheme}://host:1/path@")


@settings(deadline=None)
@given(st.text(min_size=1).filter(lambda s: s not in HIDDEN), st.text())
def test_known_secrets_are_hidden(secret, text):
    assert secret not in without_secrets(f"{secret}{text}", secret).replace(HIDDEN, "")
