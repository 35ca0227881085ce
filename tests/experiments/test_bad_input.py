"""Bad input is one line and exit code 2, and nothing is written or lost."""

import contextlib
import errno
import os
import pickle
import re
import subprocess
import sys

import numpy as np
import pytest

from cnnjax.data.tensorflow_import import import_tensorflow
from cnnjax.runtime import exits

CONFIG = """
from cnnjax.config import default_config
def get_config():
    config = default_config("CifarCNN")
    {change}
    return config
"""


def write_tfds(root, name, features, **arrays):
    """Prepares a TFDS set of one example a split."""
    tf = import_tensorflow()
    import tensorflow_datasets as tfds

    examples = tf.data.Dataset.from_tensors(arrays)
    tfds.dataset_builders.store_as_tfds_dataset(
        name,
        "1.0.0",
        data_dir=root,
        features=tfds.features.FeaturesDict(features(tfds.features)),
        split_datasets={"train": examples, "test": examples},
    )


@pytest.fixture(scope="module")
def files(make_npz, tmp_path_factory):
    """What the table below refers to, by name."""
    root = tmp_path_factory.mktemp("files")
    changes = {
        "unknown_field": "config.train.stepz = 1",
        "lacks_a_field": "del config.seed",
        "wrong_type": 'config.train.steps = "ten"',
        "syntax": "config.train.steps = = 1",
        "fails": "1 / 0",
        "key_error": '{}["colour"]',
        "exits": "raise SystemExit(0)",
        "of_no_network": 'default_config("Mlp")',
        "of_nothing": "return None",
    }
    for name, change in changes.items():
        (root / f"{name}.py").write_text(CONFIG.format(change=change))
    (root / "no_get_config.py").write_text("steps = 1\n")
    (root / "variant.py").write_text("def get_config(variant):\n    pass\n")
    colour = make_npz()
    whole = colour.read_bytes()
    (root / "truncated.npz").write_bytes(whole[: len(whole) // 2])
    (root / "not_npz.npz").write_bytes(pickle.dumps({"x_train": [1]}))
    objects = np.array([{"an": "object"}] * 30, dtype=object)
    write_tfds(
        root,
        "texts",
        lambda kinds: {"text": kinds.Text(), "label": kinds.ClassLabel(num_classes=2)},
        text="a",
        label=1,
    )
    (root / "pictures" / "train" / "cat").mkdir(parents=True)
    (root / "pictures" / "train" / "cat" / "0.png").write_bytes(b"no picture")
    return {
        "root": root,
        "colour": colour,
        "grey": make_npz((28, 28)),
        "small": make_npz((8, 8, 3)),
        "transparent": make_npz((32, 32, 4)),
        "many": make_npz(y_test=np.full(30, 10)),
        "negative": make_npz(y_train=np.full(60, -1)),
        "pickled": make_npz(y_test=objects),
        "floats": make_npz(x_test=np.zeros((30, 32, 32, 3))),
    }


NPZ = "--config.data.source=npz --config.data.file="
BASE = "cifar10.py --config=configs/base.py"
MNIST = "mnist.py --config=configs/mnist.py"

CASES = {
    # Usage and configuration.
    "flag": (f"{BASE} --nonsense=1", "nonsense"),
    "positional": (f"{BASE} nonsense", "got 'nonsense', need flags only"),
    "unknown-field": (
        f"{BASE} --config.train.stepz=1",
        "has no field stepz, perhaps steps is meant; cnnjax/config/schema.py",
    ),
    "unknown-section": (
        f"{BASE} --config.trian.steps=1",
        "has no field trian, perhaps train is meant; cnnjax/config/schema.py",
    ),
    "section": (
        f"{BASE} --config.optim=sgd",
        "got a value for a section of the configuration, need one for a field in it",
    ),
    "field-near-none": (f"{BASE} --config.train.x=1", "has no field x; cnnjax/config"),
    "field-of-a-number": (f"{BASE} --config.seed.x=1", "has no field seed.x; cnnjax/"),
    "two-files": (f"{BASE} --config=configs/base.py", "got --config 2 times, need one"),
    "field-of-another-network": (f"{BASE} --config.model.variant=1998", "variant"),
    "word-for-number": (f"{BASE} --config.train.steps=ten", "train.steps.*ten"),
    "fraction-for-integer": (f"{BASE} --config.train.steps=1.5", "train.steps.*1.5"),
    "word-for-flag": (f"{BASE} --config.model.lrn=maybe", "lrn.*maybe"),
    "number-for-list": (f"{BASE} --config.data.distortions=5", "distortions"),
    "word-of-no-list": (
        f"{BASE} --config.data.distortions=blur",
        "'blur',.*need some of .*crop, flip",
    ),
    "word-of-a-plain-list": (
        f"{BASE} --config.data.distortions=crop,blur",
        r"distortions=\('crop', 'blur'\), need some of shift, .*with commas between",
    ),
    "flag-without-value": (f"{BASE} --config.train.steps", "steps"),
    "truth-for-number": (f"{BASE} --config.seed=True", "seed.*True"),
    "no-choice": (f"{BASE} --config.optim.name=lamb", "'lamb', need one of adam, "),
    "config-unknown-field": (
        "cifar10.py --config={root}/unknown_field.py",
        "no field train.stepz",
    ),
    "config-lacks-field": (
        "cifar10.py --config={root}/lacks_a_field.py",
        "lacks the field seed",
    ),
    "config-wrong-type": (
        "cifar10.py --config={root}/wrong_type.py",
        r"with TypeError: [^^]*steps.*ten [^^]*\(.*wrong_type\.py:5\); correct it",
    ),
    "config-syntax": ("cifar10.py --config={root}/syntax.py", "SyntaxError"),
    "config-fails": ("cifar10.py --config={root}/fails.py", "ZeroDivisionError"),
    "config-key-error": (
        "cifar10.py --config={root}/key_error.py",
        r"key_error\.py fails with KeyError: 'colour' \(.*key_error\.py:5\)",
    ),
    "config-exits": ("cifar10.py --config={root}/exits.py", "with SystemExit: 0 .*:5"),
    "config-of-no-network": (
        "cifar10.py --config={root}/of_no_network.py",
        "got model.name='Mlp', need one of CifarCNN, SimpleCNN, MLP, LeNet5, ",
    ),
    "config-of-nothing": (
        "cifar10.py --config={root}/of_nothing.py",
        r"returns None from get_config\(\), need get_config\(\) that returns a Conf",
    ),
    "config-of-variants": (
        "cifar10.py --config={root}/variant.py",
        r"variant\.py fails with TypeError: get_config\(\) missing 1 required",
    ),
    "config-empty": (
        "cifar10.py --config={root}/no_get_config.py",
        r"no_get_config\.py has no get_config\(\), need get_config\(\) that returns",
    ),
    "config-missing": (
        "cifar10.py --config=configs/nowhere.py",
        "neither at .*/configs/nowhere.py nor at .*/experiments/configs/nowhere.py",
    ),
    # Numbers that are out of range, or do not go together.
    "batch-and-devices": (
        f"{BASE} {NPZ}{{colour}} --config.train.batch_size=15"
        " --config.parallel.num_devices=2",
        "batch of 15 for 2 devices.* take 14 or 16",
    ),
    "too-many-devices": (
        f"{BASE} {NPZ}{{colour}} --config.train.batch_size=51"
        " --config.parallel.num_devices=51",
        "got 51 devices, need 1 to ",
    ),
    "seeds-of-tfdata": (
        f"{BASE} {NPZ}{{colour}} --config.num_seeds=4 --config.data.pipeline=tfdata",
        "num_seeds=4 with data.pipeline=tfdata, need device",
    ),
    "seeds-and-devices": (
        f"{MNIST} {NPZ}{{grey}} --config.num_seeds=4 --config.data.pipeline=device"
        " --config.train.batch_size=15 --config.parallel.num_devices=3",
        "num_devices=3: got 4 seeds for 3 devices, .* take 1, 2 or 4 devices",
    ),
    "batch-zero": (f"{BASE} --config.train.batch_size=0", "batch_size=0, need"),
    "batch-larger-than-data": (
        f"{BASE} {NPZ}{{colour}} --config.train.batch_size=61",
        "batch_size=61, need at most 60",
    ),
    "steps-negative": (f"{BASE} --config.train.steps=-1", "steps=-1, need at least"),
    "too-many-examples": (
        f"{BASE} --config.train.steps=100000000",
        r"12800000000 examples in all.*2\*\*32",
    ),
    "seed-negative": (f"{BASE} --config.seed=-1", r"seed=-1, need .*2\*\*32"),
    "rate-nan": (f"{BASE} --config.optim.learning_rate=nan", "learning_rate=nan"),
    "top-k-of-all": (
        f"{BASE} --config.eval.top_k=10 --config.data.source=embedded",
        "top_k=10, need less than the 10 classes of shapes",
    ),
    "crop-negative": (f"{BASE} --config.data.crop=-1", "crop=-1, need"),
    "crop-larger-than-picture": (
        f"{BASE} {NPZ}{{colour}} --config.data.crop=33",
        "data.crop=33, need at most 32: .* 32x32",
    ),
    "picture-smaller-than-crop": (
        f"{BASE} {NPZ}{{small}}",
        "data.crop=24, need at most 8: .* 8x8",
    ),
    "all-held-out": (
        f"{BASE} {NPZ}{{colour}} --config.data.val_examples=60",
        "val_examples is 60",
    ),
    "decay-too-late": (
        f"{BASE} --config.optim.decay_steps=3000000000",
        r"decay_steps=3000000000, need steps below 2\*\*31",
    ),
    "decay-to-nothing": (
        f"{BASE} --config.optim.schedule=exponential --config.optim.decay_rate=0.0",
        "decay_rate=0 with optim.schedule=exponential",
    ),
    "report-and-processes": (
        f"{BASE} --config.parallel.distributed --config.train.report",
        "train.report=True with parallel.distributed",
    ),
    "keep-zero": (f"{MNIST} --config.model.keep_prob=0.0", r"keep_prob=0.0.*\(0, 1\]"),
    "keep-above-one": (f"{MNIST} --config.model.keep_prob=1.1", r"1.1.*\(0, 1\]"),
    "keep-nan": (f"{MNIST} --config.model.keep_prob=nan", r"nan.*\(0, 1\]"),
    "smoothing-for-lenet": (
        "mnist.py --config=configs/lenet5.py --config.data.source=embedded"
        " --config.optim.label_smoothing=0.1",
        "label_smoothing=0.1 for LeNet5, whose loss smooths no labels; leave it out",
    ),
    # Data.
    "tfds-missing": (
        f"{BASE} --config.data.name=cifar100",
        "cifar100 is not prepared in .* cannot be reached",
    ),
    "tfds-unknown": (f"{BASE} --config.data.name=cifar11", "cifar11"),
    "default-missing": (
        f"{BASE} --config.data.on_missing=error",
        r"cifar-10-binary\.tar\.gz \(170052171 bytes, SHA-256 [0-9a-f]{64}\) into",
    ),
    "dir-missing": (f"{BASE} --config.data.dir={{root}}/nowhere", "nowhere"),
    "no-image": (
        f"{BASE} --config.data.name=texts --config.data.dir={{root}}",
        r"texts.* features label \(ClassLabel\), text \(Text\)",
    ),
    "npz-unnamed": (f"{BASE} --config.data.source=npz", "data.file is empty"),
    "npz-missing": (f"{BASE} {NPZ}{{root}}/nowhere.npz", "nowhere.npz does not exist"),
    "npz-truncated": (f"{BASE} {NPZ}{{root}}/truncated.npz", "cannot be read"),
    "npz-other-file": (f"{BASE} {NPZ}{{root}}/not_npz.npz", "cannot be read"),
    "npz-of-no-source": (
        f"{BASE} --config.data.file={{colour}}",
        "data.source=tfds, need data.source=npz",
    ),
    "npz-transparent": (
        f"{BASE} {NPZ}{{transparent}}",
        "got pictures of 4 channels in .*, need grey ones",
    ),
    "npz-pickled": (f"{BASE} {NPZ}{{pickled}}", "pickled .* never loaded"),
    "npz-floats": (f"{BASE} {NPZ}{{floats}}", "float64 .* uint8"),
    "labels-above": (f"{BASE} {NPZ}{{many}}", "10], out of range for 10 classes"),
    "labels-negative": (f"{BASE} {NPZ}{{negative}}", r"\[-1, -1\], out of range"),
    "folder-missing": (
        f"{BASE} --config.data.source=folder --config.data.dir={{root}}/nowhere",
        "nowhere is not a folder",
    ),
    "folder-of-no-pictures": (
        f"{BASE} --config.data.source=folder --config.data.dir={{root}}/pictures",
        "pictures",
    ),
    "colour-for-grey": (
        f"{MNIST} --config.data.source=embedded --config.data.name=shapes",
        "SimpleCNN does not fit shapes: .*32, 32, 3",
    ),
    "colour-for-lenet": (
        f"mnist.py --config=configs/lenet5.py {NPZ}{{colour}}",
        "LeNet5 does not fit noise",
    ),
    "home-of-nobody": (f"{BASE} --config.data.dir=~nobody-here/x", "~nobody-here/x"),
    "npz-of-nobody": (f"{BASE} {NPZ}~nobody-here/x.npz", "~nobody-here/x.npz does"),
    "run-of-nobody": ("evaluate.py --workdir=~nobody-here/x", "~nobody-here/x/config"),
    # Folders of runs.
    "workdir-in-a-file": (
        f"{BASE} {NPZ}{{colour}} --config.train.batch_size=16 --workdir={{colour}}/run",
        "need a folder that can be written.*name another",
    ),
    "workdir-is-a-file": (
        f"{BASE} {NPZ}{{colour}} --config.train.batch_size=16 --workdir={{colour}}",
        "need a folder that can be written.*name another",
    ),
    "workdir-name-too-long": (
        f"{BASE} {NPZ}{{colour}} --config.train.batch_size=16 --workdir={'x' * 300}",
        "need a folder that can be written.*name another",
    ),
    "workdir-of-something-else": (
        f"{BASE} {NPZ}{{colour}} --config.train.batch_size=16 --workdir={{root}}",
        "not empty .* holds no config.json",
    ),
    "evaluate-nothing": ("evaluate.py", "no --workdir"),
    "evaluate-nowhere": ("evaluate.py --workdir={root}/nowhere", "config.json"),
    "evaluate-something-else": ("evaluate.py --workdir={root}", "config.json"),
}


def assert_one_line(done, words):
    assert done.returncode == 2, done.stdout + done.stderr
    assert re.fullmatch(rf"error: .*{words}.*\n", done.stderr), done.stderr


@pytest.mark.parametrize("case", CASES)
def test_one_line_and_nothing_written(call, files, snapshot, tmp_path, case):
    command, words = CASES[case]
    script, *flags = command.format(**files).split()
    before = snapshot(files["root"])
    if script != "evaluate.py":
        # Short, in case it is not refused; what the case gives comes later and wins.
        flags = [f"--workdir={tmp_path / 'run'}", "--config.train.steps=1", *flags]
    done = call(script, *flags, cwd=tmp_path)
    assert_one_line(done, words)
    assert list(tmp_path.iterdir()) == []
    assert snapshot(files["root"]) == before


# What only a process of its own shows: the frameworks' own chatter on stderr.
@pytest.mark.parametrize(
    "case", ["unknown-field", "crop-larger-than-picture", "no-image"]
)
def test_a_process_of_its_own_says_no_more(start, files, tmp_path, case):
    command, words = CASES[case]
    script, *flags = command.format(**files).split()
    process = start(script, *flags, cwd=tmp_path)
    out, err = process.communicate()
    done = subprocess.CompletedProcess(flags, process.returncode, out, err)
    assert_one_line(done, words)
    assert list(tmp_path.iterdir()) == []


def test_the_current_folder_is_looked_in_first(call, tmp_path):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "base.py").write_text(
        CONFIG.format(change="config.seed = -7")
    )
    done = call("cifar10.py", "--config", "configs/base.py", cwd=tmp_path)
    assert_one_line(done, "got seed=-7")


@pytest.mark.parametrize(
    "plain", ["shift,rotate", "[shift, rotate]", "('shift','rotate')"]
)
@pytest.mark.parametrize("script", ["cifar10.py", "mnist.py"])
def test_a_list_needs_no_quotes(call, tmp_path, script, plain):
    """What is wrong comes after it, and is told alone."""
    flags = (f"--config.data.distortions={plain}", "--config.optim.ema_decay=2.0")
    assert_one_line(call(script, *flags, cwd=tmp_path), "got optim.ema_decay=2.0, need")
    twice = call(script, f"--config.data.distortions={plain}", flags[0], cwd=tmp_path)
    assert_one_line(twice, "'shift', 'rotate', 'shift', 'rotate'.*, each once")


def test_a_configuration_that_raises_names_its_line(call, tmp_path):
    file = tmp_path / "own.py"
    file.write_text(CONFIG.format(change="undefined_name"))
    done = call("cifar10.py", f"--config={file}", cwd=tmp_path)
    assert_one_line(done, rf"NameError: .*'undefined_name'.* \({file}:5\)")


def test_a_home_folder_is_found(call, environment, tmp_path, monkeypatch):
    monkeypatch.setitem(environment, "HOME", str(tmp_path))
    (tmp_path / "own.py").write_text(CONFIG.format(change="config.seed = -7"))
    assert_one_line(call("cifar10.py", "--config=~/own.py"), "got seed=-7")
    (tmp_path / "one,run").mkdir()
    for script in ("evaluate.py", "report.py"):
        done = call(script, "--workdir=~/one,run")
        assert_one_line(done, rf"{tmp_path}/one,run/config\.json")


@pytest.mark.parametrize("script", ["verify.py", "cifar10_tensorflow.py"])
def test_a_folder_in_place_of_the_results_file(call, tmp_path, script):
    done = call(script, f"--out={tmp_path}")
    assert_one_line(done, f"got --out={tmp_path}, a folder, need a file")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "flags",
    ["evaluate.py --workdir=", "export.py --to=a --workdir=", "inspect_data.py --dir="],
)
def test_a_path_that_the_system_does_not_take(call, tmp_path, flags):
    script, *flags = f"{flags}{tmp_path / ('x' * 300)}".split()
    assert_one_line(call(script, *flags, cwd=tmp_path), "File name too long")


@pytest.mark.parametrize(
    ("number", "code", "words"),
    [
        (errno.ENOSPC, 1, r"No space left .*: 'a'; free some space and call the same"),
        (errno.ELOOP, 2, "symbolic links: 'a'; need a path that can be used"),
        (errno.EACCES, 1, "Permission denied: 'a'"),
        (errno.EIO, 1, "put error: 'a'"),
    ],
)
def test_what_the_system_refuses_is_told_with_what_to_do(
    monkeypatch, capsys, number, code, words
):
    def fail(argv):
        raise OSError(number, os.strerror(number), "a")

    monkeypatch.setattr(sys, "argv", ["evaluate.py"])
    with pytest.raises(SystemExit) as exited:
        exits.exit_with(fail, "")
    assert exited.value.code == code
    assert re.fullmatch(rf"error: .*{words}.*\n", capsys.readouterr().err)


@pytest.mark.parametrize("length", [10, 100_000])  # the latter, before the last flush
def test_a_reader_that_has_had_enough_is_told_nothing(monkeypatch, capsys, length):
    reader, writer = os.pipe()
    os.close(reader)
    monkeypatch.setattr(sys, "argv", ["benchmark.py", "--help"])
    with (
        os.fdopen(writer, "w") as pipe,
        contextlib.redirect_stdout(pipe),
        pytest.raises(SystemExit) as exited,
    ):
        exits.exit_with(print, "x" * length)
    assert (exited.value.code, capsys.readouterr().err) == (141, "")
