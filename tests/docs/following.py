"""Does what a page says, in a project folder, as a reader would."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path
from traceback import print_exc

from kedro.framework.cli.cli import KedroCLI

from .dry_runner import Planned
from .pages import ROOT, Block, Command, blocks

DRY = ("--runner", "tests.docs.dry_runner.DryRunner")
# Minutes even in a small world, or what the fixture `finished_run` has done already: of these
# only the nodes are left out.
LONG = {
    "kedro run",
    "kedro run --params expert_training.beta=500",
    "kedro run --params hate.expert_training.steps=50",
    "kedro run --params mlflow=true",
    "kedro run --pipelines expert_training",
    "kedro run --pipelines adversarial",
    "kedro run --pipelines evaluation --only-missing-outputs "
    "--params evaluation.benchmarks.take.custom=all",
    "kedro run --pipelines hardening",
}
# What a page's Python takes as given.
GIVEN = {
    "docs/explanation/merging.md": """
from pathlib import Path
from safetydpo_kedro.diffusion.lora_files import load_adapter
files = Path("data/06_models/experts").glob("*.safetensors")
experts = {file.stem: load_adapter(file) for file in files if file.stem != "all_single"}
"""
}
SHELL = {"cd", "echo", "export", "mkdir", "source"}  # they prepare what is typed next


def follow(page: str, folder: Path, log: Path) -> None:
    """Run a page's Python and commands, in its order; the exit status says whether it worked.

    Args:
        page: path from the repository's root.
        folder: of a finished project, which is changed.
        log: takes all that is printed.
    """
    file = log.open("w")
    os.dup2(file.fileno(), 1)
    os.dup2(file.fileno(), 2)
    os.chdir(folder)
    sys.path.insert(0, str(ROOT))
    names: dict = {"__name__": "page"}
    exec(GIVEN.get(page, ""), names)
    for block in blocks(page):
        try:
            if block.language == "python" and not block.is_excerpt:
                exec(compile(block.text, f"{page}:{block.line}", "exec"), names)
            elif block.language == "bash":
                follow_commands(block)
            elif block.language in ("sh", "shell", "console"):
                subprocess.run(["bash", "-n"], input=block.text, text=True, check=True)
        except BaseException:
            print(f"{page}, line {block.line}:\n{block.text}", flush=True)
            print_exc()
            sys.stderr.flush()
            os._exit(1)


def follow_commands(block: Block) -> None:
    """Run, plan or look up the commands of a block."""
    for command in block.commands:
        if command.words[:2] == ("kedro", "run"):
            if not is_new(command):
                kedro([*command.words[1:], *(() if is_run(command) else DRY)])
        elif command.words[0] == "kedro":
            kedro([*command.words[1:], "--help"])
        elif command.words[0] in SHELL:
            if command.needs is None and command.words[0] in ("mkdir", "echo"):
                subprocess.run(block_line(block, command), shell=True, check=True)
        else:
            look_up(command)


def is_run(command: Command) -> bool:
    """Whether a ``kedro run`` is really run, and not only planned."""
    return command.needs is None and str(command) not in LONG


def is_new(command: Command) -> bool:
    """Whether a command is about something that the reader has just made."""
    return command.needs is not None and "new" in command.needs.split()


def block_line(block: Block, command: Command) -> str:
    """The line of a command as it stands, with what the shell does to it."""
    lines = block.text.replace("\\\n", " ").splitlines()
    return next(line for line in lines if line.strip().startswith(command.words[0]))


def kedro(arguments: list[str]) -> None:
    """What the command ``kedro`` does, in the current folder.

    Raises:
        RuntimeError: it failed.
    """
    print("$ kedro", *arguments, flush=True)
    try:
        KedroCLI(project_path=Path.cwd()).main(args=list(arguments), prog_name="kedro")
    except Planned:
        return
    except SystemExit as end:
        if end.code:
            raise RuntimeError(f"kedro {arguments} ended with {end.code}") from end


def look_up(command: Command) -> None:
    """Check that what a command names is there; it is not run.

    Raises:
        AssertionError: it is not, or the command is of a kind that no test knows.
    """
    program, *rest = command.words
    if program == "make":
        subprocess.run(["make", "-n", *rest], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    elif program == "python" and rest[0] == "-m":
        assert find_spec(rest[1]), f"no module {rest[1]}"
    elif program == "pip":
        project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
        extra = rest[-1].partition("[")[2].removesuffix("]")
        assert not extra or extra in project["optional-dependencies"], f"no extra {extra}"
    elif program in ("hf", "mkdocs", "mlflow", "pytest", "safetydpo-kedro", "tar"):
        places = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        assert shutil.which(program, path=places), f"no program {program}"
        paths = [word for word in rest if word.startswith("tests/")]
        assert all((ROOT / path).exists() for path in paths), f"not there: {paths}"
    else:
        assert command.needs, f"no test knows {command}, and nothing says what it needs"
