"""Every command block of the README runs, in its order and cut short (one is slow).

A block under `<!-- no-test: why -->` is not run; tests/test_readme.py looks at what it
names. The one under `<!-- ci: tests -->` is what .ci/run runs.
"""

import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cnnjax.data import load
from cnnjax.data.tensorflow_import import import_tensorflow

README = (Path(__file__).parents[2] / "README.md").read_text()
BLOCKS = [
    block
    for marker, block in re.findall(r"([^\n]*)\n```bash\n(.*?)```", README, re.DOTALL)
    if not marker.startswith(("<!-- no-test: ", "<!-- ci: tests -->"))
]
# One network compiles in seconds; the others are quickly tested by test_mnist.py.
CASES = [
    pytest.param(
        block,
        id=block.splitlines()[0][-40:],
        marks=[pytest.mark.slow] if "configs/lenet5.py" in block else [],
    )
    for block in BLOCKS
]
SHORT = ["--config.train.steps=2", "--config.train.batch_size=10"]
NARROW = [*SHORT, "--config.model.width=0.1"]
ONE_VIEW = [*NARROW, "--config.eval.views=1"]
FLAGS = {"cifar10.py": NARROW, "mnist.py": SHORT, "search.py": ONE_VIEW}
PLACE = Path("PATH") / "TO"


@pytest.fixture(scope="module")
def folder(tmp_path_factory, make_npz):
    """A current folder that has what the README asks its reader to name."""
    tf = import_tensorflow()
    import tensorflow_datasets as tfds

    root = tmp_path_factory.mktemp("readme")
    place = root / PLACE
    pictures = np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3), np.uint8)
    for name, classes in (("cifar10", 10), ("cifar100", 100)):
        examples = {"image": pictures, "label": np.arange(20) % 10}
        split = tf.data.Dataset.from_tensor_slices(examples)
        features = {
            "image": tfds.features.Image(shape=(32, 32, 3)),
            "label": tfds.features.ClassLabel(num_classes=classes),
        }
        tfds.dataset_builders.store_as_tfds_dataset(
            name,
            "1.0.0",
            data_dir=place / "tensorflow_datasets",
            features=tfds.features.FeaturesDict(features),
            split_datasets={"train": split, "test": split},
        )
    shutil.copy(make_npz(), place / "pictures.npz")
    for i, picture in enumerate(pictures):
        path = place / "pictures" / "train" / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(path)
    (root / "photos").mkdir()
    Image.fromarray(pictures[0]).save(root / "photos" / "dog.png")
    Image.fromarray(pictures[1]).resize((80, 60)).save(root / "cat.jpg")
    return root


@pytest.fixture(scope="module")
def drawn_once():
    """Keeps the embedded sets, which take seconds to draw, between the commands."""
    made = {}
    draw = load.load_embedded

    def load_once(name, *, with_test=True):
        if (name, with_test) not in made:
            made[name, with_test] = draw(name, with_test=with_test)
        return made[name, with_test]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(load, "load_embedded", load_once)
        yield


def test_there_are_blocks():
    assert len(BLOCKS) > 4
    assert all("python experiments/" in block for block in BLOCKS)


@pytest.mark.usefixtures("drawn_once")
@pytest.mark.parametrize("block", CASES)
def test_a_block_runs(call, folder, block):
    for line in block.splitlines():
        # Installing is what .ci/run does.
        command = line.rpartition("&&")[2]
        program, script, *arguments = shlex.split(command)
        assert program == "python"
        name = Path(script).name
        done = call(name, *arguments, *FLAGS.get(name, []), cwd=folder)
        assert (done.returncode, done.stderr) == (0, ""), command
        assert done.stdout
