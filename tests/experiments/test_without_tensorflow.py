"""Everything but tf.data runs where TensorFlow is not installed."""

import subprocess
import sys

import pytest

PROGRAM = """
import runpy, sys
for name in ("tensorflow", "tensorflow_datasets"):
    sys.modules[name] = None  # importing it raises ImportError
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.slow  # the README's program runs without it in every suite
def test_a_run_from_npz_is_trained_resumed_and_evaluated(
    environment, scripts, make_npz, tmp_path
) -> None:
    def run(script, *flags):
        return subprocess.run(
            [sys.executable, "-c", PROGRAM, str(scripts / script), *flags],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    train = (
        "cifar10.py",
        "--workdir=run",
        "--config.data.source=npz",
        f"--config.data.file={make_npz()}",
        "--config.model.width=0.1",
        "--config.train.batch_size=16",
    )
    device = ("--config.data.pipeline=device", "--config.train.steps_per_call=2")
    for steps in (2, 4):
        done = run(*train, *device, f"--config.train.steps={steps}")
        assert done.returncode == 0, done.stderr
    assert "resuming run at step 2" in done.stdout
    done = run("evaluate.py", "--workdir=run")
    assert done.returncode == 0, done.stderr
