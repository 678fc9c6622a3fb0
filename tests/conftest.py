import os
from contextlib import contextmanager

import pytest
import torch

# Tools that the tests start say what is wrong in one sentence, as they do for most people.
os.environ.pop("HYDRA_FULL_ERROR", None)

# For tensors as small as the tests' one thread is fastest, and on busy cores two that wait for one
# another can be tens of times slower.
torch.set_num_threads(1)


class _InterruptionError(Exception):
    pass


@pytest.fixture
def interruption(monkeypatch):
    """Make contexts in which a training must come to a step and ends there.

    ``with interruption(module_type, at=...)``: ``at`` takes the Lightning module and the number of
    the batch and says whether this is the step.
    """

    @contextmanager
    def interruption(module_type, *, at):
        step = module_type.training_step

        def interrupted(module, batch, index):
            if at(module, index):
                raise _InterruptionError
            return step(module, batch, index)

        with monkeypatch.context() as patch:
            patch.setattr(module_type, "training_step", interrupted)
            with pytest.raises(_InterruptionError):
                yield

    return interruption
