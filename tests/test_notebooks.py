"""Notebooks are committed stripped, run on a finished run, and show images only as BLUR says."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from jupyter_client.manager import start_new_kernel
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
SWITCH = 'BLUR = "all"'
FRESH = """%reset -f
get_ipython().extension_manager.loaded.discard("kedro.ipython")"""


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request):
    return nbformat.read(request.param, as_version=4)


@pytest.fixture(scope="module")
def kernel(finished_run):
    """A kernel as plain Jupyter starts it, in the folder of the notebooks.

    All notebooks share it, each with names of its own, because importing torch takes longer than
    most of them.
    """
    manager, client = start_new_kernel(
        cwd=str(finished_run / "notebooks"), extra_arguments=["--HistoryManager.enabled=False"]
    )
    client.stop_channels()
    yield manager
    manager.shutdown_kernel(now=True)


def code_of(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def pictures(cell):
    return [o.data["image/png"] for o in cell.outputs if "image/png" in o.get("data", {})]


def test_there_are_five_notebooks():
    assert [path.name[0] for path in NOTEBOOKS] == list("12345")


def test_it_is_committed_without_outputs_and_traces_of_a_machine(notebook):
    nbformat.validate(notebook)
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert notebook.metadata.kernelspec.name == "python3"
    assert notebook.metadata.language_info == {"name": "python"}
    assert all(not cell.metadata for cell in notebook.cells)
    assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)
    for cell in code_of(notebook):
        assert cell.outputs == [] and cell.execution_count is None


def test_it_starts_with_the_switch_which_blurs_everything(notebook):
    first, *others = code_of(notebook)
    assert first.source.count(SWITCH) == 1
    assert not any("BLUR =" in cell.source for cell in others)


def test_links_lead_somewhere(notebook):
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    targets = [part.split(")")[0] for part in text.split("](")[1:]]
    assert targets
    for target in targets:
        assert (ROOT / "notebooks" / target).exists(), target


def test_it_runs_in_silence_and_every_image_obeys_the_switch(notebook, kernel):
    shown = code_of(notebook)
    again = [new_code_cell(cell.source) for cell in shown[1:] if "BLUR" in cell.source]
    open_switch = new_code_cell('BLUR = "none"')
    notebook.cells = [new_code_cell(FRESH), *notebook.cells, open_switch, *again]
    NotebookClient(notebook, km=kernel, timeout=300).execute()

    for cell in code_of(notebook):
        printed = [(o.name, o.text) for o in cell.outputs if o.output_type == "stream"]
        assert all(text.startswith("No attacks yet") for _, text in printed), printed
    blurred = [picture for cell in shown for picture in pictures(cell)]
    visible = [picture for cell in again for picture in pictures(cell)]
    assert len(blurred) == len(visible)
    assert not set(blurred) & set(visible)
