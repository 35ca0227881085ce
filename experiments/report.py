"""Writes an HTML page of plots about one run, or about several side by side.

python experiments/report.py --workdir=runs/first
python experiments/report.py --workdir=runs/first --workdir=runs/second

The page about one run is report/index.html in its folder. Several runs are compared in
runs/comparison-<date-time>/index.html, a new folder in the current one.
"""

from functools import partial
from pathlib import Path

from ml_collections import ConfigDict

from cnnjax import cli
from cnnjax.runtime import backend


def run(found: list[tuple[Path, ConfigDict]]) -> None:
    """Writes the page, and says where it is."""
    backend.start()
    # Imported here, so that --help does not wait for JAX.
    from cnnjax.reporting import run_report
    from cnnjax.run import load_run

    run_report.write([workdir for workdir, _ in found], partial(load_run, *found[0]))


if __name__ == "__main__":
    cli.main_on_runs(run, doc=__doc__)
