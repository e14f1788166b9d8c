"""tests/stress/__main__.py, which lists the stress programs and runs them."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

STRESS = Path(__file__).parent / "stress"
MAIN = runpy.run_path(str(STRESS / "__main__.py"))


def stress(*arguments):
    return subprocess.run(
        [sys.executable, STRESS, *arguments],
        capture_output=True,
        text=True,
        check=False,
    )


def test_alone_it_lists_every_program_and_how_long_it_takes():
    listed = stress()
    assert listed.returncode == 0, listed.stderr
    heads = [line for line in listed.stdout.splitlines() if line[0] != " "]
    files = {path.stem for path in STRESS.iterdir() if path.suffix in (".py", ".sh")}
    assert {head.split()[0] for head in heads} == files - {"__main__"}
    assert all(head.endswith(")") for head in heads)


@pytest.mark.skipif(os.name == "nt", reason="the fuzzer asks for the memory in use")
def test_one_is_run_with_its_arguments():
    done = stress("fuzz", "--calls", "100", "--seed", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "seed 1," in done.stdout


def test_an_unknown_name_is_answered_with_what_there_is():
    done = stress("frobnicate")
    assert done.returncode == 2
    assert "\nfuzz" in done.stderr


@pytest.mark.parametrize(("worst", "status"), [(0, 0), (77, 0), (3, 1)])
def test_all_fails_where_one_that_can_run_does(tmp_path, capfd, worst, status):
    for name, exit_status in (("fine", 0), ("worst", worst), ("zero", 0)):
        text = f'"""Exit.\n\n    python tests/stress {name}  (no time)\n"""\n'
        text += f"raise SystemExit({exit_status})\n"
        (tmp_path / f"{name}.py").write_text(text)
    assert MAIN["run_all"](MAIN["programs"](tmp_path)) == status
    last = capfd.readouterr().out.splitlines()[-3:]
    said = {0: "ok", 77: "cannot run here", 3: "FAILED (3)"}[worst]
    assert [line.split(",")[0].split(None, 1)[1] for line in last] == ["ok", said, "ok"]
