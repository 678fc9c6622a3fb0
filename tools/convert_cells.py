"""Bring cells from one notation to another, and draw them.

Reads our JSON, DARTS's tuples, ENAS's integers and NNI's JSON, or published cells by name; writes
one of them, cells.png and cells.svg. What a notation cannot say is refused.

python tools/convert_cells.py cells=darts_v2 to=nni
python tools/convert_cells.py cells=their_genotype.txt      # to cells.json, a backbone spec's part
"""

from pathlib import Path

import hydra
from omegaconf import DictConfig

from _entry import start_tool
from _run import plain_errors, start_run

FILE_NAMES = {"json": "cells.json", "darts": "darts.txt", "enas": "enas.txt", "nni": "nni.json"}


@hydra.main(version_base=None, config_path="../conf", config_name="convert_cells")
def main(config: DictConfig) -> None:
    with plain_errors():
        from backbone.cells.drawing import draw_genotype
        from backbone.cells.notations import format_genotype, parse_genotype
        from backbone.cells.published import PUBLISHED
        from backbone.io.files import write_text

        run = start_run(config)
        settings = run.settings
        genotype = PUBLISHED.get(settings.cells)
        if genotype is None:
            text = Path(settings.cells).read_text(encoding="utf-8")
            try:
                genotype = parse_genotype(text, merge=settings.merge)
            except ValueError as error:
                raise ValueError(f"{settings.cells}: {error}") from None
        converted = format_genotype(genotype, settings.to, merge=settings.merge)
        written = run.out / FILE_NAMES[settings.to]
        write_text(written, converted)
        for suffix in ("png", "svg"):
            draw_genotype(genotype, run.out / f"cells.{suffix}", title=Path(settings.cells).name)
        run.finish()
        print(f"cells: {written}\ndrawings: {run.out / 'cells.png'}, {run.out / 'cells.svg'}")


if __name__ == "__main__":
    start_tool(main, about=__doc__)
