import copy
import json
import shutil

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from detection.data.coco import GroundTruth
from detection.evaluation.compare import describe, explain
from detection.evaluation.files import StoredEvaluation
from detection.evaluation.report import (
    PICTURES,
    ReportOptions,
    analyze_detections,
    describe_settings,
    write_report,
)
from detection.evaluation.tables import DetectionTable

quick = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
NAMES = ["cat", "dog", "a $very$ long name of a category", "owl"]


def write_truth(path, *, boxes_per_image=3, images=12):
    rng = np.random.default_rng(0)
    rows = [
        {
            "id": number,
            "image_id": number % images,
            "category_id": int(rng.integers(3)),
            "bbox": [*rng.uniform(0, 200, 2).tolist(), *rng.uniform(20, 90, 2).tolist()],
        }
        for number in range(boxes_per_image * images)
    ]
    data = {
        "images": [{"id": i, "file_name": f"{i}.png"} for i in range(images)],
        "categories": [{"id": i, "name": name} for i, name in enumerate(NAMES)],
        "annotations": rows,
    }
    path.write_text(json.dumps(data))
    return GroundTruth.load(path), rows


def detections(rows, *, noise, seed=1):
    rng = np.random.default_rng(seed)
    return [
        {
            "image_id": row["image_id"],
            "category_id": row["category_id"],
            "bbox": np.maximum(np.array(row["bbox"]) + rng.normal(0, noise, 4), 1).tolist(),
            "score": float(rng.uniform(0.3, 1)),
        }
        for row in rows
    ]


def write(folder, truth, results, *, plots=False, **options):
    table = DetectionTable.from_results(results, truth)
    chosen, images = ReportOptions(plots=plots, **options), truth.indices_of(None)
    evaluation = analyze_detections(truth, table, images=images, options=chosen)
    write_report(
        folder, truth, evaluation, provenance={}, plots=plots,
        settings=describe_settings(truth, table, images, chosen),
    )  # fmt: skip
    return evaluation


@pytest.fixture
def two(tmp_path):
    """Two evaluations; the second has lost the first category and placed the others worse."""
    truth, rows = write_truth(tmp_path / "truth.json")
    write(tmp_path / "a", truth, detections(rows, noise=1))
    left = [row for row in rows if row["category_id"] != 0]
    write(tmp_path / "b", truth, detections(left, noise=8))
    return tmp_path / "a", tmp_path / "b"


def test_a_report_is_on_one_page_with_its_pictures(tmp_path):
    truth, rows = write_truth(tmp_path / "truth.json")
    write(tmp_path, truth, detections(rows, noise=5), plots=True)
    for name in PICTURES:
        with Image.open(tmp_path / name) as picture:
            assert min(picture.size) > 300
    page = (tmp_path / "report.html").read_text()
    assert page.count("data:image/png") == len(PICTURES)
    assert "a $very$ long name" in page
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["settings"]["num_images"] == 12
    assert metrics["per_class"]["owl"] is None
    assert set(metrics["per_iou"]) == {f"{0.5 + 0.05 * n:.2f}" for n in range(10)}


@pytest.mark.parametrize(
    "names",
    [
        ["$", "$a^$", r"\frac{", "_{"],
        ["狗", "🐕", "two\nlines", "<b>&"],
        ["a" * 300, " ", "%", "#"],
    ],
)
def test_any_name_of_a_category_can_be_drawn(tmp_path, names):
    path = tmp_path / "truth.json"
    _, rows = write_truth(path)
    data = json.loads(path.read_text())
    for category, name in zip(data["categories"], names, strict=True):
        category["name"] = name
    path.write_text(json.dumps(data))
    write(tmp_path, GroundTruth.load(path), detections(rows, noise=1), plots=True)
    assert set(json.loads((tmp_path / "metrics.json").read_text())["per_class"]) == set(names)


def test_half_a_character_is_no_name(tmp_path):
    path = tmp_path / "truth.json"
    write_truth(path)
    path.write_text(path.read_text().replace('"owl"', r'"\ud83d"'))
    with pytest.raises(ValueError, match=r"category 3 has name .*ud83d.*; it must be a text"):
        GroundTruth.load(path)


@pytest.mark.parametrize("num_boxes", [0, 1])
def test_a_report_can_be_of_nothing(tmp_path, num_boxes):
    truth, rows = write_truth(tmp_path / "truth.json", boxes_per_image=num_boxes)
    write(tmp_path, truth, [], plots=True)
    assert json.loads((tmp_path / "metrics.json").read_text())["ap"] == (0 if rows else None)
    same = StoredEvaluation.load(tmp_path)
    assert describe(explain(same, same), num_rows=5)


def test_an_explanation_names_the_changes(two):
    before, after = (StoredEvaluation.load(folder) for folder in two)
    result = explain(before, after)
    assert result.comparable
    assert not result.settings
    assert result.categories[0].name == "cat"
    assert result.categories[0].after == 0
    # The means of the figures are what the shares of categories sum to.
    moved = sum(c.difference for c in result.categories if c.difference == c.difference)
    assert moved / result.num_categories == pytest.approx(after.metrics.ap - before.metrics.ap)
    drops = {change.name: change.difference for change in result.thresholds}
    assert set(drops) == {f"{0.5 + 0.05 * n:.2f}" for n in range(10)}
    assert max(drops.values()) < 0
    gains = {change.name: change.difference for change in result.error_gains}
    assert gains["missed"] > 0
    assert result.images
    assert all(
        abs(one.difference) >= abs(other.difference)
        for one, other in zip(result.images, result.images[1:], strict=False)
    )
    text = describe(result, num_rows=2)
    assert text.startswith("Settings and annotations are the same.")
    assert "2 more categories" in text
    json.dumps(result.to_dict(), allow_nan=False)


def test_an_explanation_starts_with_a_warning_if_annotations_differ(tmp_path, two):
    truth, rows = write_truth(tmp_path / "other.json", images=9)
    write(tmp_path / "c", truth, detections(rows, noise=1))
    result = explain(
        StoredEvaluation.load(two[0]), StoredEvaluation.load(tmp_path / "c" / "metrics.json")
    )
    assert not result.comparable
    assert describe(result, num_rows=3).startswith("The evaluations are not comparable")
    assert "annotations_sha256" in describe(result, num_rows=3)


def test_images_are_not_compared_at_different_score_thresholds(tmp_path, two):
    truth, rows = write_truth(tmp_path / "truth.json")
    write(tmp_path / "c", truth, detections(rows, noise=1), score_threshold=0.9)
    result = explain(StoredEvaluation.load(two[0]), StoredEvaluation.load(tmp_path / "c"))
    assert result.comparable
    assert [change.name for change in result.settings] == ["score_threshold"]
    assert not result.images
    assert any("0.5 and 0.9" in note for note in result.missing)


def test_another_image_of_the_same_id_is_not_compared(tmp_path, two):
    path = two[0] / "images.json"
    before = json.loads(path.read_text())
    names = [f"other {name}" if n else name for n, name in enumerate(before["names"])]
    later = {**before, "names": names, "missed": [n + 1 for n in before["missed"]]}
    shutil.copytree(two[0], tmp_path / "c")
    (tmp_path / "c" / "images.json").write_text(json.dumps(later))
    result = explain(StoredEvaluation.load(two[0]), StoredEvaluation.load(tmp_path / "c"))
    assert [image.name for image in result.images] == before["names"][:1]


def test_a_report_without_plots_leaves_none_of_an_earlier_one(tmp_path):
    truth, rows = write_truth(tmp_path / "truth.json")
    write(tmp_path / "a", truth, detections(rows, noise=1), plots=True)
    assert (tmp_path / "a" / "report.html").is_file()
    write(tmp_path / "a", truth, detections(rows, noise=5))
    assert not {path.name for path in (tmp_path / "a").iterdir()} & {*PICTURES, "report.html"}


def test_an_evaluation_without_the_other_files_is_completed_from_its_results(tmp_path, two):
    truth, rows = write_truth(tmp_path / "truth.json")
    bare = tmp_path / "bare"
    write(bare, truth, detections(rows, noise=1))
    metrics = json.loads((bare / "metrics.json").read_text())
    for name in ("settings", "per_class_ap50", "per_class_ar", "per_iou"):
        del metrics[name]  # as files were before there were these
    (bare / "metrics.json").write_text(json.dumps(metrics))
    (bare / "error_kinds.json").unlink()
    (bare / "results.json").write_text(json.dumps(detections(rows, noise=1)))
    partly = explain(StoredEvaluation.load(two[0]), StoredEvaluation.load(bare))
    assert not partly.images
    assert any("annotations=..." in note for note in partly.missing)
    assert partly.figures[0].difference == pytest.approx(0)
    # What a file does not say is no difference.
    assert partly.comparable
    assert not partly.settings
    wholly = explain(StoredEvaluation.load(two[0]), StoredEvaluation.load(bare, truth=truth))
    assert not wholly.missing
    assert {change.difference for change in wholly.error_counts} == {0}


def refusal_of(action):
    """Return what a call gives and None, or None and the message of its ValueError."""
    try:
        return action(), None
    except ValueError as error:
        return None, str(error)


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=True, allow_infinity=True)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)


def slots(data):
    """Return the container and key of every value in JSON."""
    if not isinstance(data, dict | list):
        return []
    keys = list(data) if isinstance(data, dict) else list(range(len(data)))
    return [(data, key) for key in keys] + [slot for key in keys for slot in slots(data[key])]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("written")
    truth, rows = write_truth(folder / "truth.json", images=3, boxes_per_image=1)
    write(folder, truth, detections(rows, noise=1))
    return folder, {
        name: json.loads((folder / name).read_text())
        for name in ("metrics.json", "error_kinds.json", "images.json")
    }


@quick
@given(wrong=VALUES, choice=st.randoms(use_true_random=False))
def test_any_value_in_the_files_of_an_evaluation_is_explained_or_refused(written, wrong, choice):
    folder, files = written
    name = choice.choice(list(files))
    data = {"all": copy.deepcopy(files[name])}
    holder, key = choice.choice(slots(data))
    holder[key] = wrong
    (folder / name).write_text(json.dumps(data["all"]))
    one, refusal = refusal_of(lambda: StoredEvaluation.load(folder))
    (folder / name).write_text(json.dumps(files[name]))
    if one is None:
        assert str(folder / name) in refusal
        assert "\n" not in refusal
        return
    result = explain(one, one)
    assert describe(result, num_rows=3)
    assert json.dumps(result.to_dict(), allow_nan=False)


@pytest.mark.parametrize("text", ["", "[]", "{", "nan", "[" * 100_000, '{"ap": 1}', "\x00"])
def test_a_file_of_something_else_is_refused_in_one_sentence(tmp_path, text):
    path = tmp_path / "metrics.json"
    path.write_text(text)
    with pytest.raises(ValueError, match="is not a file of an evaluation of detections") as caught:
        StoredEvaluation.load(path)
    assert "\n" not in str(caught.value)


def test_a_folder_without_an_evaluation_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"metrics\.json does not exist"):
        StoredEvaluation.load(tmp_path)


FILES = VALUES | st.fixed_dictionaries(
    {
        "images": st.lists(VALUES | st.fixed_dictionaries({"id": st.integers(0, 3)}), max_size=3),
        "categories": st.lists(
            VALUES | st.fixed_dictionaries({"id": st.integers(0, 3), "name": st.text(max_size=3)}),
            max_size=3,
        ),
        "annotations": st.lists(
            VALUES
            | st.fixed_dictionaries(
                {
                    "image_id": st.integers(0, 3),
                    "category_id": st.integers(0, 3),
                    "bbox": st.lists(st.floats() | st.integers(), min_size=4, max_size=4),
                },
                optional={"area": VALUES, "iscrowd": st.integers(0, 2)},
            ),
            max_size=3,
        ),
    }
)
RESULTS = VALUES | st.lists(
    st.fixed_dictionaries(
        {
            "image_id": st.integers(0, 3),
            "category_id": st.integers(0, 3),
            "bbox": st.lists(st.floats() | st.integers(), min_size=4, max_size=4),
            "score": st.floats() | st.integers(),
        }
    ),
    max_size=4,
)


@settings(quick, max_examples=150)
@given(truth=FILES, results=RESULTS)
def test_truth_and_results_of_any_shape_are_scored_or_refused_in_one_sentence(
    tmp_path, truth, results
):
    paths = tmp_path / "truth.json", tmp_path / "results.json"
    for path, data in zip(paths, (truth, results), strict=True):
        path.write_text(json.dumps(data))

    def score():
        loaded = GroundTruth.load(paths[0])
        table = DetectionTable.load(paths[1], loaded)
        images = loaded.indices_of(None)
        return analyze_detections(loaded, table, images=images, options=ReportOptions(plots=False))

    evaluation, refusal = refusal_of(score)
    if evaluation is None:
        assert any(str(path) in refusal for path in paths)
        assert "\n" not in refusal
    else:
        assert json.dumps(evaluation.metrics.to_dict(), allow_nan=False)
