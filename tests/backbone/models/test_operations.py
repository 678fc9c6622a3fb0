import subprocess
import sys
import textwrap

import pytest
import torch

from backbone.models.operations import SameConv2d


@pytest.mark.parametrize("stride", [2, (2, 1), 3])
@pytest.mark.parametrize("groups", [1, 2])
def test_a_pointwise_kernel_that_skips_pixels_is_a_strided_one(stride, groups):
    torch.manual_seed(0)
    conv = SameConv2d(4, 6, 1, stride=stride, groups=groups).double()
    images = torch.randn(2, 4, 7, 8, dtype=torch.double)
    expected = torch.nn.functional.conv2d(images, conv.weight, stride=stride, groups=groups)
    torch.testing.assert_close(conv(images), expected)


def test_the_gradient_of_a_narrow_strided_kernel_stays_within_its_memory():
    # In a process of its own, which torch's own strided kernel ends by a fault of oneDNN's.
    code = """
        import torch
        from backbone.models.operations import SameConv2d

        for channels, height, width in ((10, 80, 112), (10, 64, 88), (12, 88, 120), (3, 80, 112)):
            conv = SameConv2d(channels, 10, 1, stride=2).to(memory_format=torch.channels_last)
            images = torch.rand(8, channels, height, width).to(memory_format=torch.channels_last)
            for _ in range(4):
                conv.zero_grad()
                conv(images.requires_grad_()).sum().backward()
            wanted = images.detach()[..., ::2, ::2].sum(dim=(0, 2, 3)).expand(10, -1)
            torch.testing.assert_close(conv.weight.grad[..., 0, 0], wanted, rtol=1e-3, atol=0)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
