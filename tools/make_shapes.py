"""Make the demonstration data: search, pretraining and detection sets of textured shapes.

Writes image folders for search and pretraining and a COCO data set; conf/ reads them by default.

python tools/make_shapes.py                             # the default, into data/shapes
python tools/make_shapes.py out=elsewhere shapes.seed=1
"""

from pathlib import Path

import hydra
from omegaconf import DictConfig, OmegaConf

from _entry import start_tool
from _run import plain_errors
from _schemas import MakeShapes
from _shapes import make_shapes_with_bar


@hydra.main(version_base=None, config_path="../conf", config_name="make_shapes")
def main(config: DictConfig) -> None:
    with plain_errors():
        settings = OmegaConf.to_object(config)
        assert isinstance(settings, MakeShapes)
        make_shapes_with_bar(settings.shapes, Path(settings.out))
    print(f"demonstration data: {settings.out}")
    print(f"detectors take it by data.root={settings.out}/detection")


if __name__ == "__main__":
    start_tool(main, about=__doc__)
