"""Logger for Weights & Biases."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from _logger_base import LightningRunLogger, LoggerConfig

if TYPE_CHECKING:
    from lightning.pytorch.loggers import WandbLogger

MODES = ("auto", "online", "offline")


@dataclass(kw_only=True, slots=True)
class WandbLoggerConfig(LoggerConfig):
    """Log to Weights & Biases."""

    project: str = "nasdet"
    """Name of the W&B project."""
    mode: str = "auto"
    """``online``; ``offline`` (to a folder, for ``wandb sync``); or ``auto``: online if an account
    is set up on this machine."""

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ValueError(f"unknown mode {self.mode!r}; choose from {list(MODES)}")


class WandbRunLogger(LightningRunLogger):
    """Lightning's W&B logger, with images."""

    lightning: WandbLogger

    def __init__(self, config: WandbLoggerConfig, out: Path) -> None:
        if find_spec("wandb") is None:
            raise ImportError(
                "logger=wandb needs the package wandb; install it with: pip install wandb"
            )
        from lightning.pytorch.loggers import WandbLogger

        offline = config.mode == "offline" or (config.mode == "auto" and not _has_account())
        super().__init__(
            WandbLogger(name=str(out), project=config.project, save_dir=out, offline=offline)
        )

    def log_images(self, name: str, paths: Sequence[Path]) -> None:
        self.lightning.log_image(name, [str(path) for path in paths])

    def close(self) -> None:
        super().close()
        self.lightning.experiment.finish()  # Lightning leaves the W&B run open


def _has_account() -> bool:
    if os.environ.get("WANDB_MODE"):
        return os.environ["WANDB_MODE"] == "online"
    if os.environ.get("WANDB_API_KEY"):
        return True
    netrc = Path.home() / ".netrc"
    return netrc.is_file() and "api.wandb.ai" in netrc.read_text(errors="replace")
