"""Checkpoints are exact, whole or absent, and refuse a run that has changed."""

from __future__ import annotations

import json
import logging
import shutil
import time
from importlib import metadata
from pathlib import Path

import pytest
import torch
from bitsandbytes.optim import AdamW8bit
from diffusers.optimization import get_scheduler
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from torch import nn
from transformers.optimization import Adafactor

from safetydpo_kedro.checkpoints import ChangedIdentityError, Checkpoints

from .processes import start

FILES = ["manifest.json", "state.json", "tensors.safetensors"]
IDENTITY = {"expert": "hate", "parameters": {"steps": 6, "betas": (0.9, 0.99)}, "data": "ab" * 32}
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
OPTIMIZERS = {
    "adamw": lambda weights: torch.optim.AdamW(weights, lr=1e-2),
    "adafactor": lambda weights: Adafactor(
        weights, lr=1e-2, scale_parameter=False, relative_step=False
    ),
    "adamw_8bit": lambda weights: AdamW8bit(weights, lr=1e-2),
}


class Run:
    """A small training whose every step draws from the global generator."""

    def __init__(self, optimizer: str = "adamw", seed: int = 0, device: str = "cpu") -> None:
        torch.manual_seed(seed)
        # 4096 numbers: fewer are not kept in 8 bits. Batch normalisation has buffers.
        self.model = nn.Sequential(nn.Linear(64, 64), nn.BatchNorm1d(64), nn.Linear(64, 1))
        self.model.to(device)
        self.device = device
        self.modules = {"model": self.model, "history": nn.ParameterList([torch.zeros(8)])}
        self.optimizer = OPTIMIZERS[optimizer](self.model.parameters())
        self.schedule = get_scheduler(
            "cosine", self.optimizer, num_warmup_steps=2, num_training_steps=8
        )
        self.parts = (self.modules, self.optimizer, self.schedule)

    def train(self, steps: int) -> Run:
        for _ in range(steps):
            loss = self.model(torch.randn(4, 64, device=self.device)).square().mean()
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            self.schedule.step()
        return self

    def weights(self) -> list[torch.Tensor]:
        return [value for module in self.modules.values() for value in module.state_dict().values()]

    def equals(self, other: Run) -> bool:
        rates = [run.optimizer.param_groups[0]["lr"] for run in (self, other)]
        pairs = zip(self.weights(), other.weights(), strict=True)
        return rates[0] == rates[1] and all(torch.equal(a, b) for a, b in pairs)


def state_of(step: int) -> dict:
    return {"seen": [step, 2.5, None], "notes": {"é": "→"}}


@pytest.fixture(scope="module")
def two(tmp_path_factory) -> Path:
    """A folder with the checkpoints of steps 1 and 2."""
    folder = tmp_path_factory.mktemp("two") / "run"
    run, checkpoints = Run(), Checkpoints(folder, IDENTITY)
    for step in (1, 2):
        checkpoints.save(step, *run.train(1).parts, state_of(step))
    return folder


@pytest.fixture
def copy(two, tmp_path) -> Path:
    return Path(shutil.copytree(two, tmp_path / "run"))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@settings(max_examples=8, deadline=None)
@given(before=st.integers(0, 4), after=st.integers(1, 4), seed=st.integers(0, 99))
def test_a_run_that_goes_on_ends_like_one_that_was_never_stopped(
    tmp_path_factory, optimizer, device, before, after, seed
):
    checkpoints = Checkpoints(tmp_path_factory.mktemp("run"), IDENTITY)
    whole = Run(optimizer, seed, device).train(before)
    path = checkpoints.save(before, *whole.parts, state_of(before))
    whole.train(after)
    resumed = Run(optimizer, seed + 1, device)
    restored = checkpoints.restore(*resumed.parts)
    assert (restored.step, restored.state, restored.path) == (before, state_of(before), path)
    assert resumed.train(after).equals(whole)


def test_weights_that_share_memory_and_half_precision_are_kept(tmp_path):
    tied = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)).bfloat16()
    tied[1].weight = tied[0].weight
    optimizer = torch.optim.SGD(tied.parameters(), lr=1.0)
    checkpoints = Checkpoints(tmp_path, {})
    checkpoints.save(1, {"tied": tied}, optimizer)
    kept = tied[0].weight.clone()
    nn.init.zeros_(tied[0].weight)
    assert checkpoints.restore({"tied": tied}, optimizer).state == {}
    assert torch.equal(tied[1].weight, kept)
    assert kept.dtype == tied[1].weight.dtype == torch.bfloat16


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    file=st.sampled_from(FILES),
    damage=st.sampled_from(["flip", "truncate", "lengthen", "delete"]),
    place=st.floats(0, 1, exclude_max=True),
    bit=st.integers(0, 7),
)
def test_any_damage_falls_back_to_the_checkpoint_before(
    tmp_path, two, caplog, file, damage, place, bit
):
    folder = tmp_path / "run"
    shutil.copytree(two, folder, dirs_exist_ok=True)
    path = folder / "step-000002" / file
    content = bytearray(path.read_bytes())
    position = int(place * len(content))
    if damage == "flip":
        content[position] ^= 1 << bit
    contents = {"truncate": content[:position], "lengthen": content + b"\n"}
    path.write_bytes(contents.get(damage, content))
    if damage == "delete":
        path.unlink()
    run, caplog_start = Run(seed=5), len(caplog.records)
    restored = Checkpoints(folder, IDENTITY).restore(*run.parts)
    messages = [record.getMessage() for record in caplog.records[caplog_start:]]
    if restored.step == 2:  # what does not matter, such as a space or a version
        assert file == "manifest.json"
        assert not messages
    else:
        [message] = messages
        assert str(path.parent) in message
        assert file in message or file == "manifest.json"
    assert restored.state == state_of(restored.step)
    assert run.equals(Run().train(restored.step))


def test_if_all_are_damaged_training_starts_afresh_and_says_so(copy, caplog):
    for path in copy.glob("*/state.json"):
        path.unlink()
    run, checkpoints = Run(seed=5), Checkpoints(copy, IDENTITY)
    with caplog.at_level(logging.WARNING):
        assert checkpoints.restore(*run.parts) is None
    assert run.equals(Run(seed=5))
    assert caplog.text.count("state.json is missing") == 2
    assert f"No checkpoint in {copy} is whole: training starts afresh" in caplog.text
    checkpoints.save(1, *run.train(1).parts)
    assert [path.name for path in copy.iterdir()] == ["step-000001"]
    assert checkpoints.restore(*run.parts).step == 1


def test_without_a_folder_there_is_nothing_to_restore_and_nothing_to_say(tmp_path, caplog):
    checkpoints = Checkpoints(tmp_path / "none", IDENTITY)
    assert checkpoints.restore(*Run().parts) is None
    assert checkpoints.latest is None
    assert not caplog.records
    assert not checkpoints.folder.exists()
    checkpoints.clear()


def test_the_last_ones_stay_in_the_order_of_their_steps(tmp_path):
    checkpoints = Checkpoints(tmp_path / "run", IDENTITY, keep=3)
    run = Run()
    for step in (5, 50, 999_999, 1_000_000, 10_000_000):
        path = checkpoints.save(step, *run.parts)
        assert checkpoints.latest == path
    names = sorted(path.name for path in checkpoints.folder.iterdir())
    assert names == ["step-1000000", "step-10000000", "step-999999"]
    assert checkpoints.restore(*run.parts).step == 10_000_000
    checkpoints.clear()
    assert not checkpoints.folder.exists()
    with pytest.raises(ValueError, match="keep is 0"):
        Checkpoints(tmp_path, IDENTITY, keep=0)


def test_a_run_that_fell_back_overwrites_what_it_left(copy):
    (copy / "step-000002" / "tensors.safetensors").write_bytes(b"")
    run, checkpoints = Run(), Checkpoints(copy, IDENTITY)
    assert checkpoints.restore(*run.parts).step == 1
    checkpoints.save(2, *run.train(1).parts)
    assert checkpoints.restore(*Run().parts).step == 2


def test_leftovers_of_a_killed_write_are_removed_and_never_read(copy):
    run, checkpoints = Run(), Checkpoints(copy, IDENTITY)
    leftover = copy / ".step-000003"
    shutil.copytree(copy / "step-000002", leftover)
    assert checkpoints.latest == copy / "step-000002"
    assert checkpoints.restore(*run.parts).step == 2
    assert not leftover.exists()
    shutil.copytree(copy / "step-000002", leftover)
    checkpoints.save(4, *run.parts)
    assert not leftover.exists()


def test_a_write_that_fails_leaves_the_earlier_checkpoints(copy):
    run, checkpoints = Run(), Checkpoints(copy, IDENTITY)
    with pytest.raises(TypeError, match="not JSON serializable"):
        checkpoints.save(3, *run.parts, {"not JSON": object()})
    assert sorted(path.name for path in copy.iterdir()) == ["step-000001", "step-000002"]


CHANGES = [
    ({**IDENTITY, "expert": "sexual"}, ["expert: hate → sexual"]),
    ({**IDENTITY, "data": "cd" * 32}, ["data: abababababab… → cdcdcdcdcdcd…"]),
    (
        {"expert": "hate", "parameters": {"steps": 8, "betas": [0.9, 0.99]}},
        ["parameters.steps: 6 → 8", "data: abababababab… → not set"],
    ),
]


@pytest.mark.parametrize("identity, lines", CHANGES)
def test_another_identity_is_refused_field_by_field(two, identity, lines):
    run = Run(seed=5)
    with pytest.raises(ChangedIdentityError) as error:
        Checkpoints(two, identity, remedy="set restart: true").restore(*run.parts)
    message = str(error.value)
    assert str(two / "step-000002") in message
    assert f"of another run: {'; '.join(lines)}. " in message
    assert message.endswith("restore the old values; to start afresh, set restart: true")
    assert run.equals(Run(seed=5))


def test_the_default_remedy_names_the_folder(two):
    with pytest.raises(ChangedIdentityError, match=f"delete the folder {two}$"):
        Checkpoints(two, {}).restore(*Run().parts)


def test_no_file_is_a_pickle(two):
    for folder in two.iterdir():
        assert sorted(path.name for path in folder.iterdir()) == FILES
        with safe_open(folder / "tensors.safetensors", framework="pt") as file:
            assert "modules/model/0.weight" in file.keys()  # noqa: SIM118
        state, manifest = (
            json.loads((folder / name).read_text()) for name in ("state.json", "manifest.json")
        )
        assert state["content"]["schedule"]["last_epoch"] == state["step"]
        assert state["identity"]["data"] == IDENTITY["data"]
        assert manifest["versions"]["torch"] == metadata.version("torch")


def save_forever(folder: Path) -> None:
    """Train one step, save, and so on; big enough that nearly all the time goes into saving."""
    run, checkpoints = Run(), Checkpoints(folder, IDENTITY)
    run.modules["large"] = nn.ParameterList([torch.zeros(1_000_000)])
    restored = checkpoints.restore(*run.parts)
    step = restored.step if restored else 0
    while True:
        step += 1
        run.modules["large"][0].data.fill_(step)
        checkpoints.save(step, *run.train(1).parts, state_of(step))


@pytest.mark.slow
def test_a_kill_at_any_moment_leaves_a_folder_to_go_on_from(tmp_path):
    folder, generator = tmp_path / "run", torch.Generator().manual_seed(0)
    steps, torn = [0], 0
    for _ in range(8):
        process = start(save_forever, folder)
        wanted, end = folder / f"step-{steps[-1] + 2:06d}", time.monotonic() + 60
        while not wanted.exists() and process.is_alive() and time.monotonic() < end:
            time.sleep(0.001)
        time.sleep(0.1 * float(torch.rand((), generator=generator)))
        process.kill()
        process.join()
        assert process.exitcode == -9
        torn += bool(list(folder.glob(".step-*")))
        run = Run(seed=5)
        run.modules["large"] = nn.ParameterList([torch.zeros(1_000_000)])
        restored = Checkpoints(folder, IDENTITY).restore(*run.parts)
        steps.append(restored.step)
        assert restored.state == state_of(restored.step)
        assert (run.modules.pop("large")[0] == restored.step).all()
        assert not list(folder.glob(".step-*"))
    assert steps == sorted(set(steps))
    assert torn > 0
    assert run.equals(Run().train(steps[-1]))
