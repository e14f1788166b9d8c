"""README.md: its example runs and checks, its links lead somewhere, it is short."""

import re
import ssl
from pathlib import Path

import pytest
from support.pages import Page

from pykeyupdate._documentation import DOCUMENTATION

ROOT = Path(__file__).parents[1]
README, DOCS = ROOT / "README.md", ROOT / "docs"
TEXT = README.read_text("utf-8")
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


def answer(tls):
    """Be example.org."""
    while tls.recv(65536):
        tls.sendall(ANSWER)


@pytest.mark.skipif(
    ssl.OPENSSL_VERSION_INFO < (3,),
    reason="OpenSSL 1.1.1 writes no later secrets to the key log",
)
def test_the_example_prints_what_the_readme_shows(world, tmp_path, monkeypatch):
    context, address = world.serve(handler=answer)
    context.check_hostname = False  # ours is called localhost
    world.is_example_org(address, context)
    monkeypatch.chdir(tmp_path)
    Page(README, tmp_path).run()
    world.wait_for_key_updates(1)


def test_it_is_short_and_begins_with_the_example():
    lines = TEXT.splitlines()
    assert len(lines) <= 100
    assert lines.index("```text") <= 35


def test_links_work_on_pypi_and_lead_to_pages_that_are_there():
    """PyPI has this page and no other file."""
    links = re.findall(r"\]\(([^)]+)\)", TEXT)
    assert links
    for link in links:
        assert link.startswith(DOCUMENTATION)
        page = link[len(DOCUMENTATION) :].partition("#")[0]
        if DOCS.exists():
            assert (DOCS / page).with_suffix(".md").is_file(), link


def test_pypi_shows_it():
    markdown = pytest.importorskip("readme_renderer.markdown")
    assert markdown.render(TEXT) is not None


@pytest.mark.parametrize("command", ["demo", "test"])
def test_commands_stand_under_their_marks(command):
    """.ci/run takes the second from there."""
    (found,) = re.findall(rf"<!-- {command} command -->\n```sh\n(.*)\n```\n", TEXT)
    assert found.startswith("python3 -m venv .venv && ")
