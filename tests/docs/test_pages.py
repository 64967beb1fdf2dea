"""What the documentation tells readers to type works."""

from __future__ import annotations

import shutil

import pytest

from tests.processes import start

from .following import follow, is_run
from .pages import PAGES, Block, blocks

TYPED = [
    page
    for page in PAGES
    if any(block.language in ("bash", "sh", "console", "python") for block in blocks(page))
]


@pytest.fixture(scope="module")
def project(finished_run, tmp_path_factory):
    """A finished project that pages may change."""
    return shutil.copytree(finished_run, tmp_path_factory.mktemp("docs") / "project", symlinks=True)


@pytest.mark.parametrize("page", TYPED)
def test_a_reader_can_follow(page, project, tmp_path):
    log = tmp_path / "log.txt"
    process = start(follow, page, project, log)
    process.join()
    assert process.exitcode == 0, log.read_text()[-6000:]


def test_most_commands_without_needs_are_really_run():
    commands = {
        str(command): command
        for page in PAGES
        for block in blocks(page)
        if block.language == "bash"
        for command in block.commands
        if command.words[:2] == ("kedro", "run") and command.needs is None
    }
    run = [text for text, command in commands.items() if is_run(command)]
    assert len(run) >= 0.6 * len(commands)


def test_a_need_holds_for_its_block_or_its_line():
    block = Block(
        "page.md", 1, "bash", "kedro run  # all\nkedro run --env sdxl \\\n  -n a  # needs a GPU\n"
    )
    assert [command.needs for command in block.commands] == [None, "a GPU"]
    assert block.commands[1].words == ("kedro", "run", "--env", "sdxl", "-n", "a")
    block = Block("page.md", 1, "bash", "# needs a server\nkedro run\n")
    assert [command.needs for command in block.commands] == ["a server"]
