"""Former names of search settings; each is refused with a sentence that gives the current name."""

from __future__ import annotations

from collections.abc import Mapping

RENAMED_SETTINGS: Mapping[str, str] = {
    "best_share": "best_fraction",
    "straggler_share": "straggler_fraction",
    "failed_share": "failed_fraction",
    "lost_share": "lost_fraction",
}
"""Former name of a setting -> its name now."""
RENAMED_CHOICES: Mapping[str, str] = {"reward=shared": "reward=supernet"}
"""Former choice of a group -> its name now."""
