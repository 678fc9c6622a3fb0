import itertools

from hypothesis import given
from hypothesis import strategies as st

from backbone.training.samplers import GroupedBatchSampler, shuffled_stream


def grouped(groups, *, batch_size, done=0, batches=50, rank=0, world_size=1):
    return GroupedBatchSampler(
        groups,
        batch_size=batch_size,
        batches_per_epoch=batches,
        batches_done=lambda: done,
        seed=3,
        rank=rank,
        world_size=world_size,
    )


@given(
    groups=st.lists(st.booleans(), min_size=1, max_size=20),
    batch_size=st.integers(1, 4),
    world_size=st.integers(1, 3),
)
def test_a_batch_has_one_group_and_images_are_as_frequent_as_in_the_stream(
    groups, batch_size, world_size
):
    for rank in range(world_size):
        batches = list(grouped(groups, batch_size=batch_size, rank=rank, world_size=world_size))
        assert len(batches) == 50
        assert all(len({groups[index] for index, _ in batch}) == 1 for batch in batches)
        items = [item for batch in batches for item in batch]
        assert len(set(items)) == len(items) == 50 * batch_size
        stream = shuffled_stream(len(groups), seed=3, rank=rank, world_size=world_size)
        # Images not yet returned are in batches that are not full, one for each group.
        first = list(itertools.islice(stream, len(items) + 2 * batch_size + len(groups) * 60))
        last = max(first.index(item) for item in items)
        assert last + 1 - len(items) <= 2 * (batch_size - 1) + 1


@given(done=st.integers(0, 40), batch_size=st.integers(1, 4))
def test_a_resumed_sampler_gives_the_remaining_batches(done, batch_size):
    groups = [n % 3 == 0 for n in range(11)]
    whole = list(grouped(groups, batch_size=batch_size, batches=60))
    assert list(grouped(groups, batch_size=batch_size, done=done, batches=20)) == whole[done:][:20]
