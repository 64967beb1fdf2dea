import pytest
import torch

from safetydpo_kedro.diffusion.lora import LoraAdapter, LoraLayer
from safetydpo_kedro.merging.experts import check_experts


@pytest.mark.parametrize("kernel", [None, (1, 9), (9, 1), (1, 1)])
def test_experts_whose_kernels_differ_are_refused(kernel):
    """The matrices have one shape, the weights that they update do not."""

    def expert(kernel):
        layer = LoraLayer(torch.ones(2, 18), torch.ones(4, 2), kernel=kernel)
        return LoraAdapter({"conv1": layer})

    square = expert((3, 3))
    assert check_experts({"a": square, "b": square}).keys() == {"a", "b"}
    with pytest.raises(ValueError, match=r"'conv1'.*\(4, 2, 3, 3\)"):
        check_experts({"a": square, "b": expert(kernel)})
