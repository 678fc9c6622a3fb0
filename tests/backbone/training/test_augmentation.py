import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from backbone.config import ClassifierRecipe
from backbone.training.augmentation import (
    EvaluationImages,
    TrainingImages,
    augment,
    cut_out,
    mix,
    random_shift,
    shift_and_flip,
)
from backbone.training.images import ImageSet


def recipe(**changes):
    needed = {
        "epochs": 1,
        "batch_size": 4,
        "optimizer": "sgd",
        "learning_rate": 0.1,
        "weight_decay": 0.0,
    }
    return ClassifierRecipe(**(needed | changes))


def image_set(*shapes):
    generator = torch.Generator().manual_seed(0)
    images = [torch.randint(256, (3, *s), dtype=torch.uint8, generator=generator) for s in shapes]
    return ImageSet(("a", "b"), tuple(n % 2 for n in range(len(images))), images.__getitem__, "")


@settings(max_examples=30, deadline=None)
@given(side=st.integers(1, 12), height=st.integers(8, 20), width=st.integers(8, 20))
def test_a_cut_out_square_is_gray_and_has_at_most_its_side(side, height, width):
    torch.manual_seed(0)
    images = torch.full((16, 3, height, width), 0.9)
    cut = cut_out(images, side)
    gray = cut == 0.5
    assert (gray | (cut == 0.9)).all()
    assert (gray[:, 0] == gray[:, 2]).all()
    rows, columns = gray[:, 0].any(dim=2).sum(dim=1), gray[:, 0].any(dim=1).sum(dim=1)
    assert (rows >= 1).all()
    assert (rows <= side).all()
    assert (columns <= side).all()
    assert (gray[:, 0].sum(dim=(1, 2)) == rows * columns).all()


def test_the_center_of_the_square_is_any_pixel():
    torch.manual_seed(0)
    gray = cut_out(torch.zeros(4000, 3, 8, 8), 1)[:, 0] == 0.5
    frequency = gray.float().mean(dim=0) * 64
    assert ((frequency > 0.5) & (frequency < 1.5)).all()


def test_a_shift_moves_each_image_by_its_own_whole_number_of_pixels():
    torch.manual_seed(0)
    images = torch.arange(64.0).view(1, 1, 8, 8).repeat(16, 3, 1, 1)
    moved = random_shift(images, 2)
    padded = torch.nn.functional.pad(images[:1], (2,) * 4, mode="reflect")[0]
    windows = [padded[:, y : y + 8, x : x + 8] for y in range(5) for x in range(5)]
    indices = [next(i for i, w in enumerate(windows) if torch.equal(w, m)) for m in moved]
    assert len(set(indices)) > 5


def test_a_shift_and_a_flip_equal_padding_and_cropping():
    images = torch.arange(2 * 3 * 5 * 6).view(2, 3, 5, 6).float()
    padded = torch.nn.functional.pad(images, (2, 2, 2, 2), mode="reflect")
    shifts = torch.tensor([[0, 3], [4, 1]])
    moved = shift_and_flip(images, shifts=shifts, flips=torch.tensor([False, True]), padding_px=2)
    assert torch.equal(moved[0], padded[0, :, 0:5, 3:9])
    assert torch.equal(moved[1], padded[1, :, 4:9, 1:7].flip(2))


def test_without_augmentation_images_stay_as_they_are():
    images = torch.rand(4, 3, 8, 8)
    unchanged = augment(images, recipe(crop_padding_px=0, horizontal_flip=False))
    assert torch.equal(unchanged, images)


def test_images_too_small_for_a_shift_are_refused():
    with pytest.raises(ValueError, match="images of 6 x 2 px are too small for shifts of 2 px"):
        random_shift(torch.zeros(1, 3, 2, 6), 2)


def test_augmentation_depends_on_the_seed_alone():
    images = image_set((40, 60), (33, 90))
    training = TrainingImages(
        images, recipe(image_side_px=24, random_crop_min_area=0.2, trivial_augment=True)
    )
    state = torch.get_rng_state()
    first, label = training[1, 5]
    assert torch.equal(torch.get_rng_state(), state)
    assert first.shape == (3, 24, 24)
    assert first.dtype == torch.uint8
    assert label == 1
    torch.rand(7)
    assert torch.equal(training[1, 5][0], first)
    assert not torch.equal(training[1, 6][0], first)


def test_evaluation_takes_the_central_crop():
    image = torch.zeros(3, 64, 128, dtype=torch.uint8)
    image[:, 16:48, 48:80] = 255
    images = ImageSet(("a",), (0,), [image].__getitem__, "")
    settings = {"image_side_px": 32, "random_crop_min_area": 0.1}
    middle, _ = EvaluationImages(images, recipe(**settings, evaluation_crop=0.5))[0]
    assert middle.shape == (3, 32, 32)
    assert (middle[:, 1:-1, 1:-1] == 255).all()
    wider, _ = EvaluationImages(images, recipe(**settings, evaluation_crop=1.0))[0]
    assert (wider > 127).float().mean().item() == pytest.approx(0.25, abs=0.03)


def test_without_random_crops_images_stay_whole():
    images = image_set((40, 60))
    assert TrainingImages(images, recipe())[0, 3][0] is images[0][0]
    assert EvaluationImages(images, recipe())[0][0] is images[0][0]


@pytest.mark.parametrize("kind", ["mixup_alpha", "cutmix_alpha"])
def test_labels_are_mixed_in_the_proportions_of_the_images(kind):
    torch.manual_seed(0)
    labels = torch.arange(4)
    # The pixels of every image are its class index, so that the mean of a mixture is known.
    images = labels.float().view(4, 1, 1, 1).expand(4, 3, 16, 16).clone()
    mixed, weights = mix(images, labels, recipe(**{kind: 1.0}), num_classes=4)
    assert weights.shape == (4, 4)
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(4))
    torch.testing.assert_close(mixed.mean(dim=(1, 2, 3)), weights @ torch.arange(4.0))


def test_without_mixing_labels_stay_indices():
    images, labels = torch.rand(4, 3, 8, 8), torch.arange(4)
    mixed, same = mix(images, labels, recipe(), num_classes=4)
    assert mixed is images
    assert same is labels


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"random_crop_min_area": 0.1}, "needs image_side_px"),
        ({"schedule": "linear"}, "unknown schedule 'linear'"),
        ({"ema_decay": 1.0}, r"ema_decay must be in \[0, 1\), not 1.0"),
        ({"drop_path_keep_prob": 0.0}, r"drop_path_keep_prob must be in \(0, 1\], not 0.0"),
        ({"checkpoint_every": 0}, "checkpoint_every must be at least 1"),
        ({"decay_epochs": 0.0}, "decay_epochs must be above 0"),
    ],
)
def test_invalid_recipes_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        recipe(**change)
