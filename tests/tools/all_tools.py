"""All command-line tools by name, for tests over each of them."""

from importlib import import_module
from pathlib import Path

from hydra import compose
from omegaconf import OmegaConf

ROOT = Path(__file__).parents[2]
PATHS = {
    path.stem: path
    for folder in ("tools", "tools/research", "tools/benchmarks")
    for path in sorted((ROOT / folder).glob("[a-z]*.py"))
    if "@tool(" in path.read_text()
}
"""Name -> file; the former paths of tools are left out."""
TOOLS = {name: import_module(name).main for name in PATHS}


def settings(name, *overrides):
    """Return the typed settings of a tool."""
    tool = TOOLS[name]
    tool.register()
    with tool.config_dir():
        return OmegaConf.to_object(compose(name, list(overrides)))
