import json

import pytest

from cnnjax.data.tensorflow_import import import_tensorflow


def lines(workdir, *, timed=True):
    """Returns step and values of each line of metrics.jsonl."""
    text = (workdir / "metrics.jsonl").read_text()
    return [
        {k: v for k, v in json.loads(x).items() if timed or "perf/" not in k}
        for x in text.splitlines()
    ]


def test_it_says_what_metrics_say_and_changes_nothing(call, tmp_path):
    common = (
        "--config=configs/mlp.py",
        "--config.train.steps=3",
        "--config.train.batch_size=16",
        "--config.train.log_every=1",
    )
    for name, wanted in {"with": True, "without": False}.items():
        flags = (f"--config.train.tensorboard={wanted}", f"--workdir={tmp_path / name}")
        done = call("mnist.py", *common, *flags)
        assert (done.returncode, done.stderr) == (0, "")
    assert not (tmp_path / "without" / "tensorboard").exists()
    seen, plain = (lines(tmp_path / name, timed=False) for name in ("with", "without"))
    assert seen == plain

    tf = import_tensorflow()
    found = {
        (event.step, value.tag): value.simple_value
        for file in (tmp_path / "with" / "tensorboard").glob("*/events*")
        for event in tf.compat.v1.train.summary_iterator(str(file))
        for value in event.summary.value
    }
    for line in lines(tmp_path / "with"):
        step = line.pop("step")
        for tag, value in line.items():
            if tag != "eval/split":
                assert found[step, tag] == pytest.approx(value, rel=1e-6)
    assert (3, "hidden/sparsity") in found
