"""Make the demonstration data: search, pretraining and detection sets of textured shapes.

python tools/make_shapes.py                             # the default, into data/shapes
python tools/make_shapes.py out=elsewhere shapes.seed=1
"""

from pathlib import Path

import hydra
from omegaconf import DictConfig, OmegaConf
from tqdm import tqdm

from _run import plain_errors
from _schemas import MakeShapes, register_schemas
from _shapes import make_shapes


@hydra.main(version_base=None, config_path="../conf", config_name="make_shapes")
def main(config: DictConfig) -> None:
    with plain_errors(), tqdm(unit=" images", desc="drawing") as bar:
        settings = OmegaConf.to_object(config)
        assert isinstance(settings, MakeShapes)

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        make_shapes(settings.shapes, Path(settings.out), progress=progress)
    print(f"demonstration data: {settings.out}")


if __name__ == "__main__":
    register_schemas()
    main()
