import torch

# For tensors as small as the tests' one thread is fastest, and on busy cores two that wait for one
# another can be tens of times slower.
torch.set_num_threads(1)
