"""The chapter as a notebook: what is stored of it, and that it runs."""

import re

import nbformat
import pytest
from nbclient import NotebookClient

PATH = "chapter.ipynb"


@pytest.fixture
def notebook(scripts):
    return nbformat.read(scripts / PATH, as_version=4)


def outputs(notebook):
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def printed(notebook):
    return "".join(o.text for o in outputs(notebook) if o.output_type == "stream")


def assert_ran(notebook):
    """Holds that each cell ran once, in order, and that nothing complained."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    counts = [cell.execution_count for cell in cells]
    assert counts == list(range(1, len(cells) + 1))
    kinds = {(o.output_type, o.get("name")) for o in outputs(notebook)}
    assert kinds <= {("stream", "stdout"), ("display_data", None)}


def test_it_is_stored_as_it_ran_on_the_real_data(notebook, scripts):
    assert_ran(notebook)
    said = printed(notebook)
    assert re.search(r"\d\d\.\d\d% of 10,000 test pictures of cifar10", said)
    assert re.search(r"9\d\.\d\d% of 10,000 test pictures of mnist", said)
    assert sum("image/png" in o.get("data", {}) for o in outputs(notebook)) > 10
    assert (scripts / PATH).stat().st_size < 1_500_000


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_it_runs_without_the_real_data(notebook, scripts, environment, tmp_path):
    """In a few steps; where CIFAR-10 and MNIST are missing it says what it takes."""
    few = {"CNNJAX_MNIST_STEPS": "3", "CNNJAX_CIFAR_STEPS": "3", "CNNJAX_DATA_DIR": ""}
    client = NotebookClient(notebook, timeout=600, kernel_name="python3")
    client.resources = {"metadata": {"path": str(tmp_path)}}
    client.execute(env=environment | few)
    assert_ran(notebook)
    said = printed(notebook)
    assert "test pictures of shapes are" in said and "of digits are" in said
    assert "cifar10 is not used: " in said
