import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from detection.config import DetectionDataConfig, DetectorRecipe
from detection.data.transforms import Augmentation, resize_image
from detection.structures import Target

SEEDS = st.integers(0, 2**40)


def scene(height=96, width=160):
    """A bright rectangle on black, with the box around it."""
    pixels = torch.zeros(3, height, width, dtype=torch.uint8)
    pixels[:, 24:56, 40:104] = 255
    return pixels, Target(torch.tensor([[40.0, 24.0, 104.0, 56.0]]), torch.tensor([3]))


def bright_box(image):
    """Return the box around what is bright, xyxy, or None."""
    rows, columns = torch.nonzero(image[0] > 0.5, as_tuple=True)
    if not len(rows):
        return None
    low = torch.stack([columns.min(), rows.min()])
    return torch.cat([low, torch.stack([columns.max(), rows.max()]) + 1]).float()


@given(seed=SEEDS, flips=st.tuples(st.booleans(), st.booleans()))
def test_boxes_follow_their_objects_through_jitter_and_flips(seed, flips):
    augment = Augmentation(
        shortest_sides_px=(64,), longest_side_px=128, jitter=(0.3, 2.0), jitter_side_px=128,
        horizontal_flip=flips[0], vertical_flip=flips[1],
    )  # fmt: skip
    image, target = augment(*scene(), seed=seed)
    assert max(image.shape[1:]) <= 128
    assert len(target.boxes) == len(target.labels)
    seen = bright_box(image)
    if seen is not None:
        # A pixel at a border that was blurred by resizing may be on either side.
        torch.testing.assert_close(target.boxes[0], seen, atol=2.5, rtol=0)


def test_a_crop_that_leaves_nothing_of_an_object_drops_it():
    augment = Augmentation(
        shortest_sides_px=(64,), longest_side_px=64, jitter=(4.0, 4.0), jitter_side_px=64
    )
    counts = {len(augment(*scene(), seed=seed)[1].labels) for seed in range(40)}
    assert counts == {0, 1}


@given(seed=SEEDS)
def test_the_shorter_side_is_one_of_those_given_and_depends_on_the_seed_alone(seed):
    augment = Augmentation(shortest_sides_px=(32, 48, 64), longest_side_px=400)
    image, target = augment(*scene(), seed=seed)
    assert min(image.shape[1:]) in (32, 48, 64)
    again, _ = augment(*scene(), seed=seed)
    assert torch.equal(image, again)
    torch.testing.assert_close(target.boxes[0], bright_box(image), atol=1.5, rtol=0)


def test_all_sides_are_drawn_about_equally_often():
    augment = Augmentation(shortest_sides_px=(16, 24, 32), longest_side_px=400)
    sides = [min(augment(*scene(), seed=1_000_003 * n)[0].shape[1:]) for n in range(300)]
    assert all(70 <= sides.count(side) <= 130 for side in (16, 24, 32))


def test_without_a_seed_nothing_is_drawn():
    augment = Augmentation(
        shortest_sides_px=(48,), longest_side_px=400, jitter=(0.1, 2.0), jitter_side_px=64,
        horizontal_flip=True,
    )  # fmt: skip
    image, target = augment(*scene(), seed=None)
    plain, _ = resize_image(scene()[0], shortest=48, longest=400)
    assert torch.equal(image, plain)
    assert target.labels.tolist() == [3]


def test_a_recipe_without_sides_takes_the_datas():
    data = DetectionDataConfig(root="", shortest_side_px=200, longest_side_px=300)
    base = {"iterations": 1, "batch_size": 1, "optimizer": "sgd", "learning_rate": 0.1}
    assert Augmentation.of_training(data, DetectorRecipe(**base)).shortest_sides_px == (200,)
    recipe = DetectorRecipe(**base, shortest_sides_px=[100, 150])
    assert Augmentation.of_training(data, recipe).shortest_sides_px == (100, 150)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scale_jitter": [2.0, 0.1]}, "two ascending factors"),
        ({"scale_jitter": [0.1, 2.0], "shortest_sides_px": [100]}, "not both"),
        ({"shortest_sides_px": [0]}, "at least 1"),
        ({"schedule": "multistep"}, "go together"),
        ({"lr_milestones": [5]}, "go together"),
        ({"schedule": "multistep", "lr_milestones": [5, 3]}, "must ascend"),
        ({"schedule": "linear"}, "unknown schedule"),
        ({"patience": 2}, "needs evaluate_every"),
        ({"ema_decay": 1.0}, "below 1"),
        ({"accumulate_grad_batches": 0}, "accumulate_grad_batches must be at least 1"),
    ],
)
def test_a_recipe_that_contradicts_itself_is_refused(changes, message):
    base = {"iterations": 1, "batch_size": 1, "optimizer": "sgd", "learning_rate": 0.1}
    with pytest.raises(ValueError, match=message):
        DetectorRecipe(**base, **changes)
