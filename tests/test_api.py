"""The public API: the README's program as it stands there, and what names it offers."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

import cnnjax as cj

README = (Path(__file__).parents[1] / "README.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```$", README, flags=re.M | re.S)
# What DESIGN promises by name.
NAMES = """
CifarCNN LeNet5 MLP MODELS SimpleCNN load_dataset Dataset Split Preprocessing batches
Recipe make_recipe make_optimizer make_schedule TrainState init_state make_train_step
make_eval_step Partitioner evaluate default_config train load_network Checkpoints
InputError RunError __version__
"""
# A machine without TensorFlow: importing it fails, as where it is not installed.
WITHOUT_TENSORFLOW = """
import sys
for name in ("tensorflow", "tensorflow_datasets"):
    sys.modules[name] = None
"""


def program() -> str:
    (found,) = [block for block in BLOCKS if "cj.evaluate" in block]
    return found


def printed(source: str, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", WITHOUT_TENSORFLOW + source],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_every_name_is_there_and_nothing_else() -> None:
    assert sorted(cj.__all__) == sorted(NAMES.split())
    assert set(cj.__all__) <= set(dir(cj))
    for name in cj.__all__:
        assert getattr(cj, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = cj.nothing


def test_importing_it_brings_nothing(tmp_path: Path) -> None:
    found = printed(
        "import sys, cnnjax; print({'jax', 'flax', 'numpy'} & set(sys.modules))",
        tmp_path,
    )
    assert found == "set()\n"


def test_the_program_of_the_readme(tmp_path: Path) -> None:
    """On the embedded shapes, without TensorFlow, in fewer steps than it has."""
    short = program().replace("range(300)", "range(60)")
    assert short != program()
    found = ast.literal_eval(printed(short, tmp_path))
    assert (found["count"], found["correct"]) == (2000, 2000 * found["accuracy"])
    # 0.39 was seen; chance is 0.1.
    assert found["accuracy"] > 0.25


@pytest.mark.slow
def test_the_whole_program_learns(tmp_path: Path) -> None:
    assert ast.literal_eval(printed(program(), tmp_path))["accuracy"] > 0.6


@pytest.mark.parametrize("kind", ["npz", "folder"])
def test_the_program_with_other_data(tmp_path: Path, kind: str) -> None:
    """Digits as an `.npz` and as a folder of pictures, with a network for digits."""
    data = cj.load_dataset("digits")
    if kind == "npz":
        file = tmp_path / "mine.npz"
        arrays = {
            f"{name}_{split}": getattr(getattr(data, split), part)
            for split in ("train", "test")
            for name, part in (("x", "images"), ("y", "labels"))
        }
        np.savez(file, **arrays)
        data = cj.load_dataset(str(file))
    if kind == "folder":
        for split, pictures in (("train", data.train), ("test", data.test)):
            for i in range(200):
                folder = tmp_path / "mine" / split / str(pictures.labels[i])
                folder.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pictures.images[i, ..., 0]).save(folder / f"{i}.png")
        data = cj.load_dataset(str(tmp_path / "mine"))
    model = cj.MLP(num_classes=data.num_classes)
    # Pictures of a folder are 32x32, of which this network sees the middle.
    recipe = cj.make_recipe(model, l2=1e-4, crop=28)
    assert recipe.preprocessing.normalise == "unit"  # the network's own
    state = cj.init_state(recipe, data.image_shape, seed=0)
    step = jax.jit(cj.make_train_step(recipe))
    for batch in cj.batches(data.train, recipe, seed=0, batch_size=50, steps=range(12)):
        state, metrics = step(state, batch)
    assert int(state.step) == 12
    assert float(metrics["l2"]) > 0  # of every kernel, as the network names none
    found = cj.evaluate(recipe, state, data.test)
    assert found["accuracy"] > 0.4
    assert found["count"] == len(data.test.labels)
