import pytest
import torch

from backbone.io.threads import limited_threads


def test_the_number_of_threads_comes_back_after_an_error():
    before = torch.get_num_threads()

    def fail():
        with limited_threads(1):
            assert torch.get_num_threads() == 1
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert torch.get_num_threads() == before


def test_zero_changes_nothing():
    before = torch.get_num_threads()
    with limited_threads(0):
        assert torch.get_num_threads() == before
