"""The recorded profile equals what its definition gives on captured inputs."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from diffusers import UNet2DConditionModel
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save
from torch import nn

from safetydpo_kedro.diffusion.lora import LoraAdapter, LoraLayer, random_adapter
from safetydpo_kedro.merging import ActivationProfile, ActivationRecorder

from .small_experts import TinyAttention, make_experts


def brute_force(experts, inputs, layer, inner=False):
    """Wins, absolute sums and square sums from dense activations of all positions at once."""
    positions = inputs.flatten(0, -2).double()
    rank = max(adapter.layers[layer].rank for adapter in experts.values())
    activations = []
    for name in sorted(experts):
        factors = experts[name].layers[layer]
        activation = positions @ (factors.a.double() if inner else dense_delta(factors)).T
        if inner:
            activation = nn.functional.pad(activation, (0, rank - factors.rank))
        activations.append(activation.abs())
    stacked = torch.stack(activations)  # experts, positions, units
    winner = stacked.argmax(0).masked_fill(stacked.amax(0) == 0, -1)
    wins = torch.stack([(winner == e).sum(0) for e in range(len(experts))])
    return wins, stacked.sum(1), stacked.square().sum(1)


def dense_delta(factors: LoraLayer) -> torch.Tensor:
    return factors.scale * factors.b.double() @ factors.a.double()


def record(unet, experts, batches, **settings):
    with ActivationRecorder(unet, experts, **settings) as recorder:
        for batch in batches:
            unet["block"](batch)
    return recorder.profile()


def assert_equal_profiles(actual: ActivationProfile, expected: ActivationProfile) -> None:
    assert (actual.experts, actual.groups) == (expected.experts, expected.groups)
    for part in ("output", "inner"):
        found, wanted = getattr(actual, part), getattr(expected, part)
        assert found.keys() == wanted.keys()
        for layer in found:
            for field, tensor in found[layer].tensors().items():
                torch.testing.assert_close(tensor, wanted[layer].tensors()[field])


def test_equals_brute_force(unet, experts):
    x = torch.randn(3, 5, 4, dtype=torch.float64)
    profile = record(unet, experts, [x])
    inputs = {"block.to_q": x, "block.to_out.0": unet["block"].to_q(x).tanh()}
    for layer, captured in inputs.items():
        for part, inner in (("output", False), ("inner", True)):
            statistics = getattr(profile, part)[layer]
            wins, absolute, squares = brute_force(experts, captured, layer, inner)
            assert statistics.count.tolist() == [15]
            assert torch.equal(statistics.wins[0], wins)
            torch.testing.assert_close(statistics.absolute_sum[0], absolute)
            torch.testing.assert_close(statistics.square_sum[0], squares)
            torch.testing.assert_close(statistics.magnitude[0], absolute / 15)
            torch.testing.assert_close(statistics.mean_square[0], squares / 15)
            torch.testing.assert_close(statistics.win_share[0], wins.double() / 15)


def test_known_winners():
    """Expert 'first' reads feature 0, 'second' twice feature 1; both write unit 0."""
    unet = nn.ModuleDict({"fc": nn.Linear(2, 2)})
    first = LoraLayer(torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0], [0.0]]))
    second = LoraLayer(torch.tensor([[0.0, 1.0]]), torch.tensor([[1.0], [0.0]]), scale=2.0)
    experts = {"second": LoraAdapter({"fc": second}), "first": LoraAdapter({"fc": first})}
    with ActivationRecorder(unet, experts) as recorder:
        unet["fc"](torch.tensor([[3.0, 1.0], [1.0, 1.0], [0.0, -1.0], [0.0, 0.0]]))
    profile = recorder.profile()
    assert profile.experts == ("first", "second")
    # Unit 0: |3|>|2|, |1|<|2|, |0|<|-2|, and nobody on the zero input. Unit 1: nobody ever.
    assert profile.output["fc"].wins.tolist() == [[[1, 0], [2, 0]]]
    assert profile.output["fc"].absolute_sum.tolist() == [[[4.0, 0.0], [6.0, 0.0]]]


@settings(deadline=None, max_examples=25)
@given(splits=st.lists(st.integers(1, 6), min_size=1, max_size=4), chunk=st.integers(1, 400))
def test_does_not_depend_on_batches_or_chunks(splits, chunk):
    torch.manual_seed(1)
    unet = nn.ModuleDict({"block": TinyAttention()}).double()
    experts = make_experts({"a": 1, "b": 2})
    x = torch.randn(sum(splits), 3, 4, dtype=torch.float64)
    whole = record(unet, experts, [x])
    parts = record(unet, experts, x.split(splits), chunk_elements=chunk)
    assert_equal_profiles(parts, whole)


def test_groups_are_profiles_of_their_own_inputs(unet, experts):
    x = torch.randn(6, 3, 4, dtype=torch.float64)
    labels = ["hate", "sexual", "hate", "sexual", "sexual", "hate"]
    with ActivationRecorder(unet, experts, groups=("hate", "sexual", "violence")) as recorder:
        for rows in (slice(0, 4), slice(4, 6)):
            recorder.label(labels[rows])
            unet["block"](x[rows])
    profile = recorder.profile()
    for index, group in enumerate(("hate", "sexual")):
        own = record(unet, experts, [x[[label == group for label in labels]]])
        for layer, statistics in profile.output.items():
            for field, tensor in statistics.tensors().items():
                torch.testing.assert_close(tensor[index], own.output[layer].tensors()[field][0])
    everything = record(unet, experts, [x])
    for layer, statistics in profile.output.items():
        assert statistics.count.tolist() == [9, 9, 0]
        assert not statistics.win_share[2].any()
        for field, tensor in statistics.total().tensors().items():
            torch.testing.assert_close(tensor, everything.output[layer].tensors()[field])


def test_expert_without_a_layer_is_inactive_there(unet, experts):
    partial = LoraAdapter({"block.to_q": experts["hate"].layers["block.to_q"]})
    x = torch.randn(2, 3, 4, dtype=torch.float64)
    profile = record(unet, experts | {"hate": partial}, [x])
    hate = profile.experts.index("hate")
    assert not profile.output["block.to_out.0"].absolute_sum[:, hate].any()
    assert not profile.output["block.to_out.0"].wins[:, hate].any()
    assert profile.output["block.to_q"].wins[:, hate].any()


def test_model_is_left_as_it_was(unet, experts):
    x = torch.randn(2, 3, 4, dtype=torch.float64)
    before = unet["block"](x)
    with ActivationRecorder(unet, experts) as recorder:
        inside = unet["block"](x)
    count = recorder.profile().output["block.to_q"].count
    assert torch.equal(inside, before)
    unet["block"](x)
    assert torch.equal(recorder.profile().output["block.to_q"].count, count)
    assert not unet["block"].to_q._forward_pre_hooks


def test_round_trip_through_safetensors(unet, experts):
    profile = record(unet, experts, [torch.randn(2, 3, 4, dtype=torch.float64)])
    tensors, metadata = profile.to_tensors()
    again = ActivationProfile.from_tensors(load(save(tensors, metadata)), metadata)
    assert_equal_profiles(again, profile)


def test_profile_file_errors(unet, experts):
    profile = record(unet, experts, [torch.randn(2, 3, 4, dtype=torch.float64)])
    tensors, metadata = profile.to_tensors()
    with pytest.raises(ValueError, match="not an activation profile"):
        ActivationProfile.from_tensors(tensors, {"format": "pt"})
    with pytest.raises(ValueError, match=r"unknown tensor 'other\.thing'"):
        ActivationProfile.from_tensors(tensors | {"other.thing": torch.ones(1)}, metadata)
    del tensors["output.wins.block.to_q"]
    with pytest.raises(ValueError, match="incomplete"):
        ActivationProfile.from_tensors(tensors, metadata)


def test_a_profile_of_other_experts_of_the_same_names_is_refused(unet, experts):
    profile = record(unet, experts, [torch.randn(2, 3, 4, dtype=torch.float64)])
    again = ActivationProfile.from_tensors(*profile.to_tensors())
    again.check_made_of(experts)
    stronger = experts | {"hate": experts["hate"].scaled(2.0)}
    with pytest.raises(ValueError, match=r"other experts named \['hate'\].*record it again"):
        again.check_made_of(stronger)
    unknown = dataclasses.replace(again, digests=())  # as files written before had it
    unknown.check_made_of(stronger)


def test_groups_of_a_kind(unet, experts):
    groups = ("unsafe/hate", "unsafe/sexual", "unsafely", "neutral")
    with ActivationRecorder(unet, experts, groups) as recorder:
        recorder.label(groups)
        unet["block"](torch.randn(4, 3, 4, dtype=torch.float64))
    statistics = recorder.profile().output["block.to_q"]
    assert statistics.of_kinds(None) is statistics
    assert statistics.of_kinds(["neutral", "unsafe"]).groups == (groups[0], groups[1], groups[3])
    unsafe = statistics.of_kinds(["unsafe"]).total()
    assert torch.equal(unsafe.wins[0], statistics.wins[0] + statistics.wins[1])
    assert unsafe.count.tolist() == [6]
    for kinds in (["safe"], ["unsafe", "safe"], []):
        with pytest.raises(ValueError, match=r"has inputs of.*'neutral', 'unsafe', 'unsafely'"):
            statistics.of_kinds(kinds)


def test_label_errors(unet, experts):
    recorder = ActivationRecorder(unet, experts, groups=("hate", "sexual"))
    with pytest.raises(ValueError, match=r"unknown labels \['hat'\]"):
        recorder.label(["hate", "hat"])
    with recorder, pytest.raises(ValueError, match="inputs need labels"):
        unet["block"](torch.zeros(2, 3, 4, dtype=torch.float64))
    recorder.label(["hate"])
    with recorder, pytest.raises(ValueError, match="batch of 2 rows, but 1 labels"):
        unet["block"](torch.zeros(2, 3, 4, dtype=torch.float64))
    with pytest.raises(ValueError, match="distinct"):
        ActivationRecorder(unet, experts, groups=("hate", "hate"))
    with pytest.raises(ValueError, match="chunk_elements"):
        ActivationRecorder(unet, experts, chunk_elements=0)


def test_layer_without_input(unet, experts):
    with pytest.raises(ValueError, match=r"layer 'block\.\S+' received no input"):
        ActivationRecorder(unet, experts).profile()


def test_activations_that_are_not_finite(unet, experts):
    x = torch.full((1, 1, 4), torch.nan, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"layer 'block\.\S+': activations are not finite"):
        record(unet, experts, [x])


@pytest.mark.parametrize(
    ("name", "n_out", "n_in", "message"),
    [
        ("block.to_k", 6, 4, "'odd' adapts layer 'block.to_k', which the model does not have"),
        ("block.to_out.1", 6, 6, "'block.to_out.1' is a Identity"),
        ("block.to_q", 6, 5, r"'odd', layer 'block.to_q': ΔW has shape \(6, 5\)"),
    ],
)
def test_expert_that_does_not_fit_the_model(unet, name, n_out, n_in, message):
    unet["block"].to_out[1].register_parameter("w", nn.Parameter(torch.zeros(1)))
    odd = LoraAdapter({name: LoraLayer(torch.ones(1, n_in), torch.ones(n_out, 1))})
    with pytest.raises(ValueError, match=message):
        ActivationRecorder(unet, {"odd": odd})


def test_half_precision_model_is_profiled_in_single(unet, experts):
    x = torch.randn(4, 3, 4)
    half = unet.bfloat16()
    profile = record(half, experts, [x.bfloat16()])
    wins, absolute, _ = brute_force(experts, x.bfloat16(), "block.to_q")
    assert torch.equal(profile.output["block.to_q"].wins[0], wins)
    torch.testing.assert_close(
        profile.output["block.to_q"].absolute_sum[0], absolute, rtol=1e-5, atol=1e-5
    )


def test_diffusers_unet_equals_brute_force():
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        cross_attention_dim=12,
        attention_head_dim=2,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    ).double()
    targets = ("to_q", "to_k", "to_v", "to_out.0")
    modules = {name: m for name, m in unet.named_modules() if name.endswith(targets)}
    shapes = {name: (m.out_features, m.in_features) for name, m in modules.items()}
    generator = torch.Generator().manual_seed(0)
    experts = {name: random_adapter(shapes, rank, generator) for name, rank in (("a", 2), ("b", 4))}
    captured: dict[str, list[torch.Tensor]] = {name: [] for name in modules}
    for name, module in modules.items():
        module.register_forward_pre_hook(lambda _, args, name=name: captured[name].append(args[0]))
    with ActivationRecorder(unet, experts) as recorder, torch.no_grad():
        for timestep in (10, 700):
            text = torch.randn(2, 5, 12, dtype=torch.float64)
            unet(torch.randn(2, 4, 8, 8, dtype=torch.float64), timestep, text)
    profile = recorder.profile()
    assert len(profile.output) == len(modules) > 8
    for name, inputs in captured.items():
        positions = torch.cat([x.flatten(0, -2) for x in inputs])
        for inner, statistics in ((False, profile.output[name]), (True, profile.inner[name])):
            wins, absolute, squares = brute_force(experts, positions, name, inner)
            assert statistics.count.tolist() == [len(positions)]
            assert torch.equal(statistics.wins[0], wins)
            torch.testing.assert_close(statistics.absolute_sum[0], absolute)
            torch.testing.assert_close(statistics.square_sum[0], squares)


def test_peft_wrapped_layers(unet, experts):
    """Names and inputs stay the same when PEFT has wrapped the layer and its adapter is off."""
    from peft import LoraConfig, inject_adapter_in_model

    x = torch.randn(2, 3, 4, dtype=torch.float64)
    plain = record(unet, experts, [x])
    inject_adapter_in_model(LoraConfig(r=2, target_modules=["to_q", "to_out.0"]), unet)
    assert_equal_profiles(record(unet, experts, [x]), plain)
