"""The examples in the docstrings of the public API run, and its pages are made."""

import doctest
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cnnjax as cj

NAMES = [name for name in cj.__all__ if name not in ("__version__", "MODELS")]
GLOBALS = {"cj": cj, "jax": jax, "jnp": jnp, "np": np}


@pytest.mark.parametrize("name", NAMES)
def test_an_example_runs(name: str, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    thing = getattr(cj, name)
    found = doctest.DocTestFinder(recurse=False).find(thing, name, globs=GLOBALS.copy())
    (example,) = found
    assert example.examples, f"{name} has no example"
    said: list[str] = []
    failed, _ = doctest.DocTestRunner().run(example, out=said.append)
    assert not failed, "".join(said)


def test_pages_are_made_without_a_warning(tmp_path) -> None:
    command = [sys.executable, "-W", "error", "-m", "pdoc", "cnnjax", "-d", "google"]
    done = subprocess.run(
        [*command, "-o", str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    page = (tmp_path / "cnnjax.html").read_text()
    for name in cj.__all__:
        assert f'id="{name}"' in page
