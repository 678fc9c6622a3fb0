import subprocess
import sys

import pytest

import backbone


@pytest.mark.parametrize("name", backbone.__all__)
def test_every_exported_name_is_there(name):
    assert getattr(backbone, name).__name__ == name


def test_importing_the_package_loads_no_torch():
    code = "import backbone, sys; backbone.Genotype; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_unknown_name_is_refused():
    with pytest.raises(AttributeError, match="'backbone' has no attribute 'networks'"):
        backbone.networks  # noqa: B018
