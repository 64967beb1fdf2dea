from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from safetydpo_kedro import digests
from safetydpo_kedro.digests import tensors_digest

DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.uint8, torch.bool]
shapes = st.lists(st.integers(0, 4), max_size=3).map(tuple)


def tensors_of(seed: int, shape: tuple[int, ...], dtype: torch.dtype) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    make = (torch.randint(0, 256, shape, generator=generator) for _ in range(2))
    return dict(zip("ab", (values.to(dtype) for values in make), strict=True))


@given(st.integers(0, 99), shapes, st.sampled_from(DTYPES))
def test_only_names_dtypes_shapes_and_bytes_matter(seed, shape, dtype):
    tensors = tensors_of(seed, shape, dtype)
    digest = tensors_digest(tensors)
    other_layout = {k: v.T.contiguous().T if v.ndim == 2 else v for k, v in tensors.items()}
    assert tensors_digest(dict(reversed(other_layout.items()))) == digest
    assert tensors_digest({"a": tensors["a"], "c": tensors["b"]}) != digest
    assert tensors_digest({k: v[None] for k, v in tensors.items()}) != digest
    another = torch.int32 if dtype != torch.int32 else torch.int16
    assert tensors_digest({k: v.to(another) for k, v in tensors.items()}) != digest
    if tensors["a"].numel():
        flipped = tensors["a"].flatten().clone()
        flipped.view(torch.uint8)[-1] ^= 1
        assert tensors_digest(tensors | {"a": flipped.reshape(shape)}) != digest


def test_values_do_not_move_from_one_tensor_to_the_next():
    a, b = torch.arange(4.0).split(2)
    assert tensors_digest({"a": a, "b": b}) != tensors_digest({"a": b, "b": a})
    assert tensors_digest({}) != tensors_digest({"a": torch.empty(0)})


def test_the_size_of_the_pieces_does_not_matter(monkeypatch):
    tensors = tensors_of(0, (7, 5), torch.float32)
    digest = tensors_digest(tensors)
    monkeypatch.setattr(digests, "CHUNK_BYTES", 3)
    assert tensors_digest(tensors) == digest


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_device_does_not_matter(dtype):
    tensors = tensors_of(0, (7, 5), dtype)
    on_gpu = {name: tensor.cuda() for name, tensor in tensors.items()}
    assert tensors_digest(on_gpu) == tensors_digest(tensors)
