"""A stock Linen network, added to a copy of the package as the README says.

It has BatchNorm and Dropout and is written as Flax's examples are. The copy stands in a
folder of its own, so that its processes can be killed and resumed.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

# The quick tests of networks with state are in tests/test_run.py and others.
pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
NETWORK = """
import flax.linen as nn


class SmallCNN(nn.Module):
    num_classes: int = 10
    width: int = 8
    drop: float = 0.3

    @nn.compact
    def __call__(self, x, train: bool):
        for features in (self.width, 2 * self.width, 4 * self.width):
            x = nn.Conv(features, (3, 3), use_bias=False)(x)
            x = nn.relu(nn.BatchNorm(use_running_average=not train)(x))
            x = nn.max_pool(x, (2, 2), strides=(2, 2))
        x = x.reshape((x.shape[0], -1))
        x = nn.Dropout(self.drop, deterministic=not train)(x)
        return nn.Dense(self.num_classes)(x)
"""
CONFIG = """
from cnnjax.config import default_config


def get_config():
    config = default_config("SmallCNN")
    config.data.source = "embedded"
    config.data.pipeline = "device"
    config.data.crop = 24
    config.data.distortions = ("crop", "flip")
    config.data.train_examples = 2000
    config.optim.ema_decay = 0.9
    config.model.width = 4
    config.train.steps = 24
    config.train.batch_size = 100
    config.train.log_every = 1
    config.train.checkpoint_every = 8
    config.train.tensorboard = False
    config.eval.views = 10
    return config
"""
PREDICTED = """
import sys
import numpy as np
import cnnjax as cj
from cnnjax import exporting
from pathlib import Path

run, export, pictures, out = sys.argv[1:]
images = np.load(pictures)
own = cj.load_network(run).predict(images)
exported, _ = exporting.load(Path(export))
np.savez(out, own=own, exported=exported.call(images))
"""


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """The package and the scripts with one more network, in two files and a config."""
    root = tmp_path_factory.mktemp("own")
    for folder in ("cnnjax", "experiments"):
        unwanted = shutil.ignore_patterns("__pycache__", "results")
        shutil.copytree(ROOT / folder, root / folder, ignore=unwanted)
    models = root / "cnnjax" / "models"
    (models / "small.py").write_text(NETWORK)
    with (models / "__init__.py").open("a") as file:
        file.write("\nfrom cnnjax.models.small import SmallCNN\n")
        file.write('MODELS["SmallCNN"] = SmallCNN\n')
    (root / "experiments" / "configs" / "small.py").write_text(CONFIG)
    return root


@pytest.fixture(scope="module")
def run_script(copy, environment):
    """Returns (script, *flags) -> what the script printed."""

    def run_script(script, *flags, devices=2):
        own = environment | {
            "PYTHONPATH": str(copy),
            "JAX_NUM_CPU_DEVICES": str(devices),
        }
        command = [sys.executable, str(copy / "experiments" / script), *flags]
        done = subprocess.run(
            command, cwd=copy, env=own, capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, ""), done.stdout
        return done.stdout

    return run_script


def trained(run_script, workdir, *flags, devices=2):
    run_script(
        "cifar10.py",
        "--config=configs/small.py",
        f"--workdir={workdir}",
        *flags,
        devices=devices,
    )
    return workdir


@pytest.fixture(scope="module")
def run_of_two(run_script, tmp_path_factory):
    return trained(run_script, tmp_path_factory.mktemp("two") / "run")


def losses(workdir):
    lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return [line["train/loss"] for line in lines if "train/loss" in line]


def digests(workdir):
    meta = workdir / "checkpoints" / "24" / "meta" / "metadata"
    return json.loads(meta.read_text())["digest"]


@pytest.mark.parametrize("devices", [1, 4])
def test_devices_change_nothing(run_script, run_of_two, tmp_path, devices):
    """Statistics are those of the global batch, masks those of the examples."""
    flags = (f"--config.parallel.num_devices={devices}", "--config.train.steps=5")
    other = trained(run_script, tmp_path / "run", *flags, devices=devices)
    np.testing.assert_allclose(losses(other), losses(run_of_two)[:5], atol=1e-5)


def test_pmap_and_tfdata_change_nothing(run_script, run_of_two, tmp_path):
    flags = (
        "--config.parallel.mode=pmap",
        "--config.data.pipeline=tfdata",
        "--config.train.steps=5",
    )
    other = trained(run_script, tmp_path / "run", *flags)
    np.testing.assert_allclose(losses(other), losses(run_of_two)[:5], atol=1e-5)


def test_each_seed_has_its_own(run_script, run_of_two, tmp_path):
    flags = ("--config.num_seeds=2", "--config.train.steps=5")
    seeds = trained(run_script, tmp_path / "seeds", *flags)
    second = trained(run_script, tmp_path / "second", "--config.seed=1", *flags[1:])
    expected = np.stack([losses(run_of_two)[:5], losses(second)], axis=1)
    np.testing.assert_allclose(losses(seeds), expected, atol=1e-5)


def test_killed_and_resumed_to_the_same_bytes(
    copy, environment, run_script, run_of_two, tmp_path
):
    workdir = tmp_path / "run"
    command = [sys.executable, str(copy / "experiments" / "cifar10.py")]
    flags = ["--config=configs/small.py", f"--workdir={workdir}"]
    with subprocess.Popen(
        [*command, *flags],
        cwd=copy,
        env=environment | {"PYTHONPATH": str(copy)},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("step 10,"):
                process.kill()
    assert not (workdir / "final_metrics.json").exists()
    trained(run_script, workdir)
    found, expected = digests(workdir), digests(run_of_two)
    assert found == expected
    assert any("batch_stats" in name for name in found)
    assert any("ema_collections" in name for name in found)


def test_predicted_reported_evaluated_and_exported(
    copy, environment, run_script, run_of_two, tmp_path
):
    from cnnjax.data.load import load_embedded

    images = load_embedded("shapes").test.images[:7]
    np.save(tmp_path / "pictures.npy", images)
    Image.fromarray(images[0]).save(tmp_path / "picture.png")
    said = run_script(
        "predict.py", f"--workdir={run_of_two}", f"{tmp_path}/picture.png"
    )
    assert "picture.png" in said
    assert "report:" in run_script("report.py", f"--workdir={run_of_two}")
    for name in ("filters", "maps_Conv_0"):  # its first convolution, by its own name
        assert (run_of_two / "report" / f"{name}.svg").exists()
    final = json.loads((run_of_two / "final_metrics.json").read_text())
    line = run_script("evaluate.py", f"--workdir={run_of_two}")
    assert f"({final['test_ema/correct']}/2000) on shapes [test_ema]" in line
    assert f"({final['test_multiview/correct']}/2000)" in line

    file = tmp_path / "small.stablehlo"
    run_script("export.py", f"--workdir={run_of_two}", f"--to={file}")
    paths = (run_of_two, file, tmp_path / "pictures.npy", tmp_path / "out.npz")
    subprocess.run(
        [sys.executable, "-c", PREDICTED, *map(str, paths)],
        cwd=copy,
        env=environment | {"PYTHONPATH": os.fspath(copy)},
        check=True,
    )
    with np.load(tmp_path / "out.npz") as found:
        np.testing.assert_allclose(found["exported"], found["own"], atol=1e-5)
        np.testing.assert_allclose(found["own"].sum(axis=1), 1, atol=1e-5)
