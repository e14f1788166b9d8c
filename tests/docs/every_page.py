"""Every code block of the pages in docs/ runs, and prints what the page shows.

``test_pages.py`` runs this in a process of its own, because pages speak of all
connections of the process.
"""

import gc
from pathlib import Path

import pytest
from support.pages import BASH, Page

DOCS = Path(__file__).parents[2] / "docs"
PAGES = sorted(path for path in DOCS.rglob("*.md") if "_build" not in path.parts)


# ``asyncio.run()`` may end while a server of the page still closes its connection.
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.parametrize("path", PAGES, ids=lambda it: str(it.relative_to(DOCS)))
def test_blocks_run_and_print_what_the_page_shows(path, tmp_path, world, monkeypatch):
    if not BASH and "```console" in path.read_text("utf-8"):
        pytest.skip("its commands are for bash")
    monkeypatch.chdir(tmp_path)
    Page(path, tmp_path, world=world).run()
    gc.collect()  # here, where the filter holds
