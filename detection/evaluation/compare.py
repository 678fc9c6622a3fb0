"""Explain the change of AP between two evaluations by settings, IoUs, classes, errors, images."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from backbone.io.text_tables import text_table
from detection.evaluation.files import ImageTallies, StoredEvaluation
from detection.evaluation.metrics import FIGURES
from detection.evaluation.summary import format_percent
from detection.evaluation.tide import ERROR_TYPES

COMPARABLE = ("annotations_sha256", "num_images", "num_categories", "max_detections")
"""Settings that every metric depends on; if one differs, the metrics cannot be compared."""
SETTINGS = (*COMPARABLE, "backend", "score_threshold")
DETECTIONS = ("num_detections", "lowest_score")
Row = Sequence[str]


@dataclass(frozen=True, slots=True)
class Change:
    """One value in both evaluations."""

    name: str
    before: Any
    after: Any

    @property
    def difference(self) -> float:
        """``after`` - ``before``; NaN if either is missing."""
        if isinstance(self.before, int | float) and isinstance(self.after, int | float):
            return self.after - self.before
        return math.nan

    @property
    def size(self) -> float:
        """Absolute difference; -1 if a value is missing, so that it sorts last."""
        return -1.0 if math.isnan(self.difference) else abs(self.difference)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON types."""
        values = {"before": self.before, "after": self.after, "difference": self.difference}
        return {"name": self.name} | {
            name: _finite_or_none(value) for name, value in values.items()
        }


@dataclass(frozen=True, slots=True)
class ImageChange:
    """False positives and misses of one image in both evaluations."""

    id: int
    name: str
    false: tuple[int, int]
    """Before and after."""
    missed: tuple[int, int]

    @property
    def difference(self) -> int:
        """Change of the number of mistakes."""
        return self.false[1] + self.missed[1] - self.false[0] - self.missed[0]

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON types."""
        return {
            "id": self.id,
            "name": self.name,
            "false": list(self.false),
            "missed": list(self.missed),
            "difference": self.difference,
        }


@dataclass(frozen=True, slots=True)
class Explanation:
    """Differences between two evaluations; categories and images by descending effect."""

    settings: Sequence[Change]
    """Settings that differ."""
    detections: Sequence[Change]
    figures: Sequence[Change]
    thresholds: Sequence[Change]
    """AP by IoU."""
    categories: Sequence[Change]
    """AP."""
    num_categories: int
    """Number of categories with an AP in ``before``."""
    error_gains: Sequence[Change]
    """Points of AP50 gained by fixing each type of error."""
    error_counts: Sequence[Change]
    images: Sequence[ImageChange]
    missing: Sequence[str]
    """Sentences on what could not be compared, and why."""

    @property
    def comparable(self) -> bool:
        """Whether both were scored on the same objects with the same limits."""
        return not any(change.name in COMPARABLE for change in self.settings)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON types."""
        names = (
            "settings", "detections", "figures", "thresholds", "categories",
            "error_gains", "error_counts", "images",
        )  # fmt: skip
        rows = {name: [row.to_dict() for row in getattr(self, name)] for name in names}
        return {"same_question": self.comparable, "missing": list(self.missing), **rows}


def explain(before: StoredEvaluation, after: StoredEvaluation) -> Explanation:
    """Compare two evaluations in everything that their files hold."""
    missing = []
    for evaluation in (before, after):
        if not evaluation.settings:
            missing.append(f"{evaluation.path} has no settings; they may differ")
        if evaluation.errors is None:
            missing.append(
                f"{evaluation.path.parent} has no error_kinds.json and images.json; with "
                "annotations=... they are computed from its results.json"
            )
    old, new = before.metrics, after.metrics
    figures = [Change(name, getattr(old, name), getattr(new, name)) for name in FIGURES]
    gains, counts = [], []
    if before.errors is not None and after.errors is not None:
        gains = _changes(before.errors.gains, after.errors.gains)
        counts = _changes(before.errors.counts, after.errors.counts)
    images = _image_changes(before.images, after.images, missing)
    # The metrics of a training have no settings, which is a note and not a difference.
    known = before.settings and after.settings
    settings = _changes(before.settings, after.settings, SETTINGS) if known else []
    return Explanation(
        settings=[change for change in settings if change.before != change.after],
        detections=_changes(before.settings, after.settings, DETECTIONS),
        figures=figures,
        thresholds=_changes(old.per_iou, new.per_iou),
        categories=_by_size(_changes(old.per_class, new.per_class)),
        num_categories=sum(not math.isnan(ap) for ap in old.per_class.values()),
        error_gains=gains,
        error_counts=counts,
        images=images,
        missing=list(dict.fromkeys(missing)),
    )


def _changes(
    before: Mapping[str, Any], after: Mapping[str, Any], names: Sequence[str] | None = None
) -> list[Change]:
    """Return the changes of all names in one or both, in their order."""
    chosen = dict.fromkeys((*before, *after)) if names is None else names
    return [
        Change(name, before.get(name), after.get(name))
        for name in chosen
        if name in before or name in after
    ]


def _by_size(changes: Sequence[Change]) -> list[Change]:
    return sorted(changes, key=lambda change: -change.size)


def _image_changes(
    before: ImageTallies | None, after: ImageTallies | None, missing: list[str]
) -> list[ImageChange]:
    if before is None or after is None:
        return []
    if before.score_threshold != after.score_threshold:
        missing.append(
            "images cannot be compared: their tallies have score thresholds of "
            f"{before.score_threshold:g} and {after.score_threshold:g}"
        )
        return []
    later_keys = zip(after.ids, after.names, strict=True)
    later = dict(zip(later_keys, zip(after.false, after.missed, strict=True), strict=True))
    earlier_keys = zip(before.ids, before.names, strict=True)
    changes = [
        ImageChange(*key, (false, later[key][0]), (missed, later[key][1]))
        for key, false, missed in zip(earlier_keys, before.false, before.missed, strict=True)
        if key in later  # in other annotations, the id may be another image's
    ]
    return sorted(
        (change for change in changes if change.difference), key=lambda c: -abs(c.difference)
    )


def describe(explanation: Explanation, *, num_rows: int) -> str:
    """Format the differences as tables, long ones with at most ``num_rows`` rows."""
    e = explanation
    gains = [change for change in e.error_gains if change.name in ERROR_TYPES]
    parts = [
        _comparability(e),
        _headline(e),
        _section("settings that differ", e.settings, form=_format_setting),
        _section("detections", e.detections, form=_format_exact),
        _section("figures", e.figures),
        _section("AP by IoU", e.thresholds),
        _category_section(e, num_rows),
        _section("AP50 gained by fixing", gains),
        _section("number of errors", e.error_counts, form=_format_exact),
        _image_section(e.images, num_rows),
        *(f"note: {note}" for note in e.missing),
    ]
    return "\n\n".join(part for part in parts if part)


def _comparability(e: Explanation) -> str:
    """Return a sentence on whether the metrics can be compared."""
    if not e.comparable:
        return (
            "The evaluations are not comparable: they differ in annotations, images or limits of "
            "detections."
        )
    if e.settings or any("settings" in note for note in e.missing):
        return ""
    return "Settings and annotations are the same."


def _headline(e: Explanation) -> str:
    """Return a sentence on the change of AP and what contributed most."""
    figures = {change.name: change for change in e.figures}
    ap = figures["ap"]
    if math.isnan(ap.difference):
        return ""
    before, after = format_percent(ap.before), format_percent(ap.after)
    text = f"AP went from {before} to {after} ({_signed(ap.difference)})."
    sizes = [Change(s, *_both(figures[f"ap_{s}"])) for s in ("small", "medium", "large")]
    gains = [change for change in e.error_gains if change.name in ERROR_TYPES]
    for words, changes in (
        ("category", e.categories),
        ("IoU", e.thresholds),
        ("size of objects", sizes),
        ("error type, by the AP50 gained by fixing it,", gains),
    ):
        changed = [c for c in _by_size(changes) if c.size >= 0.05]
        if changed:
            most = changed[0]
            text += f" The {words} that changed most: {most.name} ({_signed(most.difference)})."
    return text


def _both(change: Change) -> tuple[Any, Any]:
    return change.before, change.after


def _section(title: str, changes: Sequence[Change], *, form: Any = format_percent) -> str:
    if not changes:
        return ""
    rows = [
        (c.name, _shown(c.before, form), _shown(c.after, form), _signed(c.difference, _digits(c)))
        for c in changes
    ]
    return text_table((title, "before", "after", "change"), rows)


def _category_section(e: Explanation, num_rows: int) -> str:
    changed = [c for c in e.categories if c.difference][:num_rows]
    if not e.categories:
        return ""
    rows = [
        (
            c.name, _shown(c.before, format_percent), _shown(c.after, format_percent),
            _signed(c.difference), _signed(c.difference / max(e.num_categories, 1), 2),
        )
        for c in changed
    ]  # fmt: skip
    if not rows:
        return "The AP of no category changed."
    left = len(e.categories) - len(rows)
    head = ("AP by category", "before", "after", "change", "of the mean")
    return text_table(head, rows) + (f"\n{left} more categories" if left else "")


def _image_section(images: Sequence[ImageChange], num_rows: int) -> str:
    if not images:
        return ""
    rows = [
        (
            f"{c.name} (id {c.id})",
            f"{c.false[0]} -> {c.false[1]}",
            f"{c.missed[0]} -> {c.missed[1]}",
            f"{c.difference:+d}",
        )
        for c in images[:num_rows]
    ]
    left = len(images) - len(rows)
    table = text_table(("image", "false", "missed", "mistakes"), rows)
    return table + (f"\n{left} more images changed" if left else "")


def _shown(value: Any, form: Any) -> str:
    return "n/a" if value is None else form(value)


def _format_setting(value: Any) -> str:
    """Return a value as text, a SHA-256 abbreviated to 12 digits."""
    text = str(value)
    return text[:12] if re.fullmatch("[0-9a-f]{64}", text) else text


def _format_exact(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _signed(value: float, digits: int = 1) -> str:
    return "" if math.isnan(value) else f"{value:+.{digits}f}"


def _digits(change: Change) -> int:
    """Return the number of decimals of a change: 0 for counts, 3 for scores, 1 for percentages."""
    if isinstance(change.before, int) and isinstance(change.after, int):
        return 0
    return 3 if change.name in DETECTIONS else 1


def _finite_or_none(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
