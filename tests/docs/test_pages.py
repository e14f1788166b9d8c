"""The pages of docs/, and what runs their code blocks."""

import subprocess
import sys
from pathlib import Path

import pytest
from support.pages import BASH, Page

HERE = Path(__file__).parent
DOCS = HERE.parents[1] / "docs"

needs_bash = pytest.mark.skipif(not BASH, reason="there is no bash")


@pytest.mark.skipif(not DOCS.exists(), reason="no documentation here")
def test_every_page_shows_what_its_blocks_print():
    """See every_page.py; ``pytest tests/docs/every_page.py -k incident`` runs one."""
    command = [sys.executable, "-m", "pytest", "-q", str(HERE / "every_page.py")]
    done = subprocess.run(command, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout


BLOCKS = [
    pytest.param("```python\nprint(1)\n```\n\n```text\n{}\n```\n", id="python"),
    pytest.param("```console\n$ echo 1\n{}\n```\n", id="console", marks=needs_bash),
    pytest.param(
        """```python
import threading

thread = threading.Thread(target=print, args=(1,))
thread.start()
thread.join()
```

```text
{}
```
""",
        id="thread",
    ),
]


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("shown", ["1", "2", ""])
def test_a_wrong_output_is_noticed(block, shown, tmp_path):
    path = tmp_path / "page.md"
    path.write_text(block.format(shown), "utf-8")
    page = Page(path, tmp_path)
    if shown == "1":
        page.run()
    else:
        with pytest.raises(pytest.fail.Exception, match="what ran printed\n\n1"):
            page.run()


@pytest.mark.parametrize(("shown", "is_true"), [("ab", True), ("aa", False)])
def test_secrets_that_differ_are_shown_to_differ(shown, is_true, tmp_path):
    path = tmp_path / "page.md"
    text = "\n".join(letter * 16 for letter in shown)
    source = "print('1' * 16, '2' * 16, sep='\\n')"
    path.write_text(f"```python\n{source}\n```\n\n```text\n{text}\n```\n", "utf-8")
    page = Page(path, tmp_path)
    if is_true:
        page.run()
    else:
        with pytest.raises(pytest.fail.Exception):
            page.run()


def test_an_output_that_is_not_shown_is_noticed(tmp_path):
    path = tmp_path / "page.md"
    path.write_text("```python\nprint(1)\n```\n", "utf-8")
    with pytest.raises(AssertionError, match="does not show this"):
        Page(path, tmp_path).run()


@pytest.mark.parametrize(
    "text", [pytest.param("```sh\nif\n```", marks=needs_bash), "```java\n1\n```"]
)
def test_a_block_that_is_none_is_noticed(text, tmp_path):
    path = tmp_path / "page.md"
    path.write_text(text, "utf-8")
    with pytest.raises(pytest.fail.Exception):
        Page(path, tmp_path).run()
