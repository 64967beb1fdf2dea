"""Credentials belong to a machine, whatever the environment."""

from __future__ import annotations

from pathlib import Path

import pytest
from kedro.config import MissingConfigException

from safetydpo_kedro.config_loader import ExpertConfigLoader


@pytest.fixture
def conf(tmp_path) -> Path:
    for env in ("base", "local", "sd15"):
        (tmp_path / env).mkdir()
    return tmp_path


def credentials(conf: Path, env: str | None) -> dict:
    loader = ExpertConfigLoader(
        str(conf), env=env, base_env="base", default_run_env="local", experts={}
    )
    return loader["credentials"]


@pytest.mark.parametrize("env", [None, "local", "sd15", "base"])
def test_local_credentials_hold_in_every_environment(conf, env):
    (conf / "local/credentials.yml").write_text("server: {api_key: mine}")
    assert credentials(conf, env) == {"server": {"api_key": "mine"}}


def test_the_credentials_of_an_environment_win(conf):
    (conf / "base/credentials.yml").write_text("a: base\nb: base\nc: base")
    (conf / "local/credentials.yml").write_text("b: local\nc: local\nd: local")
    (conf / "sd15/credentials.yml").write_text("c: sd15")
    assert credentials(conf, "sd15") == {"a": "base", "b": "local", "c": "sd15", "d": "local"}
    assert credentials(conf, None) == {"a": "base", "b": "local", "c": "local", "d": "local"}


def test_environment_variables_may_hold_them(conf, monkeypatch):
    monkeypatch.setenv("SERVER_KEY", "secret")
    (conf / "local/credentials.yml").write_text("server: {api_key: '${oc.env:SERVER_KEY}'}")
    assert credentials(conf, "sd15") == {"server": {"api_key": "secret"}}


def test_a_folder_that_is_not_there_has_none(conf):
    (conf / "local").rmdir()
    (conf / "sd15/credentials.yml").write_text("a: sd15")
    assert credentials(conf, "sd15") == {"a": "sd15"}


def test_no_credentials_at_all_are_missing_as_in_kedro(conf):
    with pytest.raises(MissingConfigException):
        credentials(conf, "sd15")
