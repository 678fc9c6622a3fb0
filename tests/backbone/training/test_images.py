import numpy as np
import pytest
import torch
from PIL import Image

from backbone.training.images import load_image_set, read_image

COLORS = np.array(
    [[[250, 10, 20], [20, 240, 30], [10, 20, 230]], [[128, 128, 128], [0, 0, 0], [255, 255, 255]]],
    dtype=np.uint8,
)


def pixels(image):
    return image.permute(1, 2, 0).numpy()


def test_an_rgb_image_keeps_its_pixels(tmp_path):
    Image.fromarray(COLORS).save(tmp_path / "x.png")
    image = read_image(tmp_path / "x.png")
    assert image.dtype == torch.uint8
    np.testing.assert_array_equal(pixels(image), COLORS)


def test_a_grayscale_image_has_three_equal_channels(tmp_path):
    gray = COLORS[..., 0]
    Image.fromarray(gray).save(tmp_path / "x.png")
    np.testing.assert_array_equal(pixels(read_image(tmp_path / "x.png")), np.stack([gray] * 3, -1))


def test_a_16_bit_image_is_scaled_not_clipped(tmp_path):
    values = np.array([[0, 257 * 100, 65535]], dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / "x.png")
    np.testing.assert_array_equal(pixels(read_image(tmp_path / "x.png"))[0, :, 0], [0, 100, 255])


def test_a_cmyk_image_is_converted(tmp_path):
    big = np.repeat(np.repeat(COLORS, 16, 0), 16, 1)
    Image.fromarray(big).convert("CMYK").save(tmp_path / "x.jpg", quality=100)
    image = pixels(read_image(tmp_path / "x.jpg"))
    assert image.shape == big.shape
    assert np.abs(image[8, 8].astype(int) - [250, 10, 20]).max() < 40


def test_transparent_pixels_become_white(tmp_path):
    palette = Image.fromarray(COLORS).quantize(6)
    transparent = palette.getpixel((0, 0))
    palette.save(tmp_path / "x.png", transparency=transparent)
    image = pixels(read_image(tmp_path / "x.png"))
    np.testing.assert_array_equal(image[0, 0], [255, 255, 255])
    np.testing.assert_array_equal(image[0, 1], COLORS[0, 1])


def rotated_file(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # display rotated by 90 degrees clockwise
    path = tmp_path / "x.png"
    Image.fromarray(COLORS).save(path, exif=exif)
    return path


def test_an_exif_rotation_is_applied(tmp_path):
    image = pixels(read_image(rotated_file(tmp_path)))
    np.testing.assert_array_equal(image, np.rot90(COLORS, -1))


def test_an_exif_rotation_is_ignored_if_annotations_are_for_the_unrotated_image(tmp_path):
    path = rotated_file(tmp_path)
    np.testing.assert_array_equal(pixels(read_image(path, size=(3, 2))), COLORS)
    np.testing.assert_array_equal(pixels(read_image(path, size=(2, 3))), np.rot90(COLORS, -1))


def test_an_image_of_a_size_other_than_annotated_is_refused(tmp_path):
    Image.fromarray(COLORS).save(tmp_path / "x.png")
    with pytest.raises(ValueError, match=r"x\.png is 3 x 2 pixels, but 5 x 5 in its annotations"):
        read_image(tmp_path / "x.png", size=(5, 5))


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_a_truncated_image_is_refused_by_name(tmp_path, suffix):
    path = tmp_path / f"x.{suffix}"
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:-1500])
    with pytest.raises(ValueError, match=rf"cannot read image .*x\.{suffix}"):
        read_image(path)


def test_a_file_that_is_not_an_image_is_refused_by_name(tmp_path):
    (tmp_path / "x.png").write_text("hello")
    with pytest.raises(ValueError, match=r"cannot read image .*x\.png"):
        read_image(tmp_path / "x.png")


def test_a_missing_image_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.png"):
        read_image(tmp_path / "none.png")


def test_classes_are_sorted_by_name_and_test_serves_as_val(tmp_path):
    for split in ("train", "test"):
        for name in ("b", "a"):
            folder = tmp_path / split / name
            folder.mkdir(parents=True)
            Image.fromarray(COLORS).save(folder / "0.png")
    images = load_image_set(tmp_path, "val")
    assert images.classes == ("a", "b")
    assert [images[i][1] for i in range(len(images))] == [0, 1]
    np.testing.assert_array_equal(pixels(images[0][0]), COLORS)


def test_missing_parts_of_an_image_set_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere does not exist"):
        load_image_set(tmp_path / "nowhere", "train")
    (tmp_path / "train").mkdir()
    with pytest.raises(FileNotFoundError, match=r"has no folder val"):
        load_image_set(tmp_path, "val")
    with pytest.raises(FileNotFoundError, match=r"contains no images"):
        load_image_set(tmp_path, "train")
