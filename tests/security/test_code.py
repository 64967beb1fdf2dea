"""No code of the project opens a pickle, runs a text, or lets a model bring code of its own."""

from __future__ import annotations

import re

import pytest
import yaml

from .code_rules import ROOT, findings, python_sources

# What each of these does, and which tests hold that it does no more.
ALLOWED = {
    # A reader that knows one form: tests/metrics/test_q16_conversion.py.
    "src/safetydpo_kedro/metrics/q16_conversion.py": {"pickle", "pickletools"},
    # Tensors are handed to torch-fidelity in memory: tests/metrics/test_inception.py.
    "src/safetydpo_kedro/metrics/inception.py": {"torch.save"},
    # Options of the source, always with use_safetensors: tests/datasets/test_diffusion_pipeline.py.
    "src/safetydpo_kedro/diffusion/loading.py": {"from_pretrained(**options)"},
    # GGUF weights in their place: tests/prompts/test_real_language_model.py.
    "src/safetydpo_kedro/prompts/chat_transformers.py": {"from_pretrained(**options)"},
}
DATASETS = re.compile(
    r"safetydpo_kedro\.datasets\.\w+"
    r"|MemoryDataset|pandas\.(CSV|Parquet)Dataset|text\.TextDataset|yaml\.YAMLDataset|json\.JSONDataset"
    r"|plotly\.JSONDataset|matplotlib\.MatplotlibDataset"
)


def test_only_what_is_allowed_is_found():
    found = {name: there for name, text in python_sources() if (there := findings(text))}
    assert found == ALLOWED


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from joblib import load",
        "import torch.nn, dill",
        "torch.load(path)",
        "torch.load(path, weights_only=flag)",
        "np.load(path, allow_pickle=True)",
        "pd.read_pickle(path)",
        "table.to_pickle(path)",
        "yaml.load(text, Loader=yaml.Loader)",
        "eval(text)",
        "exec(text, {})",
        "os.system(text)",
        "subprocess.run(text, shell=True)",
        "Model.from_pretrained(path)",
        "Model.from_pretrained(path, use_safetensors=None)",
        "Tokenizer.from_pretrained(path, trust_remote_code=True)",
        "Tokenizer.from_pretrained(path, trust_remote_code=flag)",
        "options = {'trust_remote_code': True}",
    ],
)
def test_the_rules_see(line):
    assert findings(line)


@pytest.mark.parametrize(
    "line",
    [
        "model.eval()",
        "torch.load(path, weights_only=True)",
        "yaml.load(text, Loader=yaml.SafeLoader)",
        "yaml.safe_load(text)",
        "Model.from_pretrained(path, use_safetensors=True)",
        "CLIPTokenizer.from_pretrained(path, trust_remote_code=False)",
        "subprocess.run([program])",
    ],
)
def test_the_rules_let_pass(line):
    assert not findings(line)


def test_no_catalog_entry_and_no_example_of_one_is_a_pickle():
    pages = [*ROOT.glob("conf/**/*.yml"), *ROOT.glob("docs/**/*.md"), ROOT / "README.md"]
    types = {
        (page.name, kind)
        for page in pages
        for kind in re.findall(r"\btype: *\"?([\w.]+Dataset)\b", page.read_text("utf-8"))
    }
    assert len(types) > 20
    assert not {entry for entry in types if not DATASETS.fullmatch(entry[1])}


def test_no_configuration_and_no_page_switches_remote_code_on():
    for folder in ("conf", "docs", "notebooks", "src"):
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in (".yml", ".md", ".ipynb", ".jinja"):
                text = path.read_text("utf-8")
                assert not re.search(r"trust_remote_code\W{1,5}[Tt]rue", text), path


def test_the_configuration_is_plain_yaml():
    for path in ROOT.glob("conf/**/*.yml"):
        yaml.safe_load(path.read_text("utf-8"))  # an error for tags, which name Python objects
