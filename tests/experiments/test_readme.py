"""Every command block of the four READMEs runs, in order and cut short (some are slow).

A block under `<!-- no-test: why -->` is not run; tests/test_readme.py looks at what it
names. The one under `<!-- ci: tests -->` is what .ci/run runs. Only blocks of `bash`
hold commands.
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

ROOT = Path(__file__).parents[2]
READMES = (
    "README.md",
    "experiments/README.md",
    "experiments/results/README.md",
    "cnnjax/README.md",
)


def read_blocks() -> dict[str, list[str]]:
    """Returns the commands of each block; one that stands in several runs once."""
    seen: set[str] = set()
    found = {}
    for name in READMES:
        text = (ROOT / name).read_text()
        for marker, block in re.findall(
            r"([^\n]*)\n```bash\n(.*?)```", text, re.DOTALL
        ):
            if marker.startswith(("<!-- no-test: ", "<!-- ci: tests -->")):
                continue
            commands = [line for line in block.splitlines() if line not in seen]
            if commands:
                found[f"{name}: {commands[0][-40:]}"] = commands
            seen.update(commands)
    return found


BLOCKS = read_blocks()
# The first network compiles in seconds, and what the others do test_benchmark.py and
# test_search.py test quickly.
SLOW = ("configs/lenet5.py", "benchmark.py", "search.py")
CASES = [
    pytest.param(
        commands,
        id=name,
        marks=[pytest.mark.slow] if any(x in str(commands) for x in SLOW) else [],
    )
    for name, commands in BLOCKS.items()
]
SHORT = ["--config.train.steps=2", "--config.train.batch_size=10"]
NARROW = [*SHORT, "--config.model.width=0.1"]
ONE_VIEW = [*NARROW, "--config.eval.views=1"]
FLAGS = {
    "cifar10.py": NARROW,
    "mnist.py": SHORT,
    "search.py": ONE_VIEW,
    "benchmark.py": ["--rounds=1"],
    "verify.py": ["--only=machine"],
}
PLACE = Path("PATH") / "TO"


@pytest.fixture(scope="module")
def folder(tmp_path_factory, make_npz):
    """A current folder that has what the READMEs ask their reader to name."""
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
    Image.fromarray(pictures[2]).convert("L").save(root / "digit.png")
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
    assert len(BLOCKS) > 10
    for commands in BLOCKS.values():
        assert all("python experiments/" in command for command in commands)


@pytest.mark.usefixtures("drawn_once")
@pytest.mark.parametrize("commands", CASES)
def test_a_block_runs(call, folder, commands):
    for line in commands:
        # Installing is what .ci/run does.
        command = line.rpartition("&&")[2]
        program, script, *arguments = shlex.split(command)
        assert program == "python"
        name = Path(script).name
        done = call(name, *arguments, *FLAGS.get(name, []), cwd=folder)
        assert (done.returncode, done.stderr) == (0, ""), command
        assert done.stdout
