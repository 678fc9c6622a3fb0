import subprocess
import sys
from pathlib import Path

import pytest

import search


@pytest.mark.parametrize("name", search.__all__)
def test_every_exported_name_exists(name):
    assert getattr(search, name).__name__ == name


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'search' has no attribute 'search_everything'"):
        _ = search.search_everything


def test_importing_the_package_loads_no_torch():
    code = "import sys, search; search.SearchConfig; print('torch' in sys.modules)"
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root
    )
    assert done.stdout == "False\n"
