import subprocess
import sys

import pytest
import torch

from backbone.io import runtime
from backbone.io.runtime import choose_device, hidden_package, limited_threads, process_group


def test_the_number_of_threads_is_restored_after_an_error():
    before = torch.get_num_threads()

    def fail():
        with limited_threads(1):
            assert torch.get_num_threads() == 1
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert torch.get_num_threads() == before


def test_zero_threads_change_nothing():
    before = torch.get_num_threads()
    with limited_threads(0):
        assert torch.get_num_threads() == before


def test_without_torchrun_a_process_is_alone(monkeypatch):
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert (runtime.global_rank(), runtime.local_rank()) == (0, 0)
    assert (runtime.world_size(), runtime.local_world_size(), runtime.num_nodes()) == (1, 1, 1)
    with process_group() as rank:
        assert rank == 0
        assert not torch.distributed.is_initialized()


def test_ranks_are_those_of_torchrun(monkeypatch):
    values = {
        "RANK": 5,
        "LOCAL_RANK": 1,
        "WORLD_SIZE": 8,
        "LOCAL_WORLD_SIZE": 4,
        "GROUP_WORLD_SIZE": 2,
    }
    for name, value in values.items():
        monkeypatch.setenv(name, str(value))
    assert (runtime.global_rank(), runtime.local_rank()) == (5, 1)
    assert (runtime.world_size(), runtime.local_world_size(), runtime.num_nodes()) == (8, 4, 2)


def test_a_rank_is_known_before_torch_is_imported():
    code = "import sys; from backbone.io import runtime; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_devices_have_torch_s_and_lightning_s_names(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    names = ("auto", "gpu", "cuda", "cuda:1", "cpu")
    assert [str(choose_device(name)) for name in names] == ["cuda", "cuda", "cuda", "cuda:1", "cpu"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert str(choose_device("auto")) == "cpu"


@pytest.mark.parametrize("name", ["gpu", "cuda", "cuda:1"])
def test_a_missing_gpu_is_one_sentence(name, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match=f"device '{name}' is not available: torch finds no GPU"):
        choose_device(name)


def test_unknown_devices_are_refused():
    with pytest.raises(ValueError, match="unknown device 'gpu0'; choose 'auto', 'cpu', 'gpu'"):
        choose_device("gpu0")


def test_a_hidden_package_cannot_be_imported_until_the_block_ends(monkeypatch):
    monkeypatch.delitem(sys.modules, "wave", raising=False)
    with hidden_package("wave"), pytest.raises(ImportError):
        import wave
    import wave

    with hidden_package("wave"):
        import wave as visible
    assert visible is wave
