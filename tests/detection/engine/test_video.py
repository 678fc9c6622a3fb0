import json

import numpy as np
import pytest
from test_predict import INFO, LeftHalf

from detection.engine.tta import TestTimeAugmentation
from detection.engine.video import FrameSelection, is_video, predict_video

cv2 = pytest.importorskip("cv2")


@pytest.fixture
def video(tmp_path):
    path = tmp_path / "street.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 10, (640, 480))
    for number in range(7):
        writer.write(np.full((480, 640, 3), 30 * number, np.uint8))
    writer.release()
    return path


def run(video, out, **selection):
    path, count = predict_video(
        LeftHalf().eval(), INFO, str(video), out, tta=TestTimeAugmentation.from_config(INFO),
        selection=FrameSelection(**selection), progress=False,
    )  # fmt: skip
    return path, count, [json.loads(line) for line in path.read_text().splitlines()]


def frames_of(path):
    capture = cv2.VideoCapture(str(path))
    count = 0
    while capture.read()[0]:
        count += 1
    return count, capture.get(cv2.CAP_PROP_FPS)


def test_every_frame_gets_a_line_and_a_drawing(video, tmp_path):
    path, count, lines = run(video, tmp_path / "out", batch_size=3)
    assert count == len(lines) == 7
    assert [line["frame"] for line in lines] == list(range(7))
    assert [line["seconds"] for line in lines] == pytest.approx([n / 10 for n in range(7)])
    dog = lines[0]["detections"][0]
    assert dog["class_name"] == "dog"
    assert dog["box_xyxy"] == pytest.approx([0, 0, 320, 480], abs=0.01)
    assert frames_of(path.with_suffix(".mp4")) == (7, 10)


def test_frames_can_be_left_out_and_limited(video, tmp_path):
    path, count, lines = run(video, tmp_path / "out", every_nth=3, max_frames=2)
    assert (count, [line["frame"] for line in lines]) == (2, [0, 3])
    assert frames_of(path.with_suffix(".mp4")) == (2, pytest.approx(10 / 3, abs=0.01))


def test_a_video_that_is_cut_off_says_so(tmp_path, caplog):
    whole, part = tmp_path / "whole.avi", tmp_path / "part.avi"
    writer = cv2.VideoWriter(str(whole), cv2.VideoWriter.fourcc(*"MJPG"), 10, (640, 480))
    noise = np.random.default_rng(0).integers(0, 255, (20, 480, 640, 3), np.uint8)
    for pixels in noise:
        writer.write(pixels)
    writer.release()
    assert run(whole, tmp_path / "a")[1] == 20
    assert not caplog.text
    contents = whole.read_bytes()
    part.write_bytes(contents[: len(contents) // 2])
    _, count, _ = run(part, tmp_path / "b")
    assert 0 < count < 20
    assert f"only {count} of 20 frames could be read" in caplog.text


def test_what_is_no_video_is_one_sentence_and_leaves_nothing(tmp_path):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    for name, message in (
        (broken, "broken.mp4 cannot be opened"),
        (tmp_path / "none.mp4", "none.mp4 does not exist"),
        ("87", "camera 87 cannot be opened"),
    ):
        with pytest.raises(ValueError, match=message):
            run(name, tmp_path / "out")
    assert not list((tmp_path / "out").glob("*"))


def test_the_keyboard_ends_a_video_in_good_order(video, tmp_path, monkeypatch):
    real, calls = LeftHalf.predict, []

    def interrupted(self, images):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return real(self, images)

    monkeypatch.setattr(LeftHalf, "predict", interrupted)
    path, count, lines = run(video, tmp_path / "out")
    assert count == len(lines) == 3
    assert frames_of(path.with_suffix(".mp4"))[0] == 3


def test_videos_and_cameras_are_told_from_images(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert is_video("a/b.MP4")
    assert is_video("0")
    assert not is_video("a.png")
    (tmp_path / "0").mkdir()
    assert not is_video("0")
