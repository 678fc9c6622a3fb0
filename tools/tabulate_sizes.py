"""Count our networks' parameters and multiply-adds beside the published ones, as a table.

Prints the table and writes it between the marks of docs/backbones.md.

python tools/tabulate_sizes.py
"""

import re
from pathlib import Path

import hydra
from omegaconf import DictConfig

from _entry import start_tool
from _run import plain_errors, start_run

TABLE = re.compile(r"(?<=<!-- sizes -->\n).*(?=<!-- /sizes -->)", re.DOTALL)


@hydra.main(version_base=None, config_path="../conf", config_name="tabulate_sizes")
def main(config: DictConfig) -> None:
    with plain_errors():
        from backbone.io.files import write_text
        from backbone.profile.published_sizes import tabulate_sizes

        path = Path(start_run(config).settings.out)
        text = path.read_text(encoding="utf-8")
        if TABLE.search(text) is None:
            raise ValueError(f"{path} has no lines <!-- sizes --> and <!-- /sizes -->")
        table = tabulate_sizes()
        write_text(path, TABLE.sub(lambda _: f"\n{table}\n\n", text))
        print(f"{table}\n\nwritten: {path}")


if __name__ == "__main__":
    start_tool(main, about=__doc__)
