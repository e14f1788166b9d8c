"""A type checker takes what the pages say that it takes."""

import subprocess
import sys
from pathlib import Path

import pytest
from support.pages import blocks_of

ROOT = Path(__file__).parents[2]
PAGES = ["README.md", "docs/how-to/type-checking.md"]


@pytest.mark.parametrize("name", PAGES)
def test_a_type_checker_takes_the_blocks(name, tmp_path):
    pytest.importorskip("mypy")
    if not (ROOT / name).exists():
        pytest.skip("no documentation here")
    blocks = [it.source for it in blocks_of(ROOT / name) if it.kind == "python"]
    program = tmp_path / "program.py"
    program.write_text("\n".join(blocks), "utf-8")
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", str(program)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout
