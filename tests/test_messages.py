import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_nothing_tells_users_to_install_nasdet_from_an_index():
    """nasdet is on no package index: whoever registered the name would be installed."""
    pattern = "nasdet" + "["
    files = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split("\n")
    texts = {".py", ".md", ".yaml", ".yml", ".toml", ".txt", ".cfg", ""}
    offending = [
        name
        for name in files
        if name
        and Path(name).suffix in texts
        and (ROOT / name).is_file()
        and pattern in (ROOT / name).read_text(encoding="utf-8", errors="replace")
    ]
    assert not offending
