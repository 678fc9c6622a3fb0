"""Make the demonstration data: search, pretraining and detection sets of textured shapes.

python tools/make_shapes.py                             # the default, into data/shapes
python tools/make_shapes.py out=elsewhere shapes.seed=1
"""

from pathlib import Path

import hydra
from omegaconf import DictConfig, OmegaConf

from _run import plain_errors
from _schemas import MakeShapes, register_schemas
from _shapes import make_shapes_with_bar


@hydra.main(version_base=None, config_path="../conf", config_name="make_shapes")
def main(config: DictConfig) -> None:
    with plain_errors():
        settings = OmegaConf.to_object(config)
        assert isinstance(settings, MakeShapes)
        make_shapes_with_bar(settings.shapes, Path(settings.out))
    print(f"demonstration data: {settings.out}")


if __name__ == "__main__":
    register_schemas()
    main()
