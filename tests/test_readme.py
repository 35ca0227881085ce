"""What the README names exists; its commands run in experiments/test_readme.py."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from absl import flags
from ml_collections import config_flags

from cnnjax import config

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
COMMANDS = [
    line[line.index("python experiments/") :]
    for block in re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
    for line in block.splitlines()
    if "python experiments/" in line
]
DEFAULTS = {
    "cifar10.py": "configs/base.py",
    "mnist.py": "configs/mnist.py",
    "search.py": "configs/base.py",
    "evaluate.py": "configs/base.py",
}


def test_there_are_commands() -> None:
    assert len(COMMANDS) > 10
    assert README.count("<!-- ci: tests -->") == 1


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_can_be_run(command: str) -> None:
    _, script, *arguments = shlex.split(command)
    assert (ROOT / script).is_file()
    name = Path(script).name
    if name not in DEFAULTS:
        asked = [sys.executable, str(ROOT / script), "--help"]
        help_text = subprocess.run(asked, capture_output=True, text=True).stdout
        for flag in re.findall(r"--\w+", " ".join(arguments)):
            assert re.search(rf"^{flag}\b", help_text, re.MULTILINE), flag
        return
    named = [a for a in arguments if a.startswith("--config=")]
    path = named[0].split("=", 1)[1] if named else DEFAULTS[name]
    argv = ["", f"--config={ROOT / 'experiments' / path}"]
    argv += [a for a in arguments if not a.startswith("--config=")]
    values = flags.FlagValues()
    flags.DEFINE_string("workdir", "", "", flag_values=values)
    flags.DEFINE_multi_string("vary", [], "", flag_values=values)  # search.py's
    made = config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=argv)
    assert values(argv) == [""]
    config.validate(made.value)


@pytest.mark.parametrize("path", re.findall(r"\]\(([^)#h][^)]*)\)", README))
def test_a_link_leads_somewhere(path: str) -> None:
    assert (ROOT / path).exists()


@pytest.mark.parametrize(
    ("path", "names"),
    re.findall(r"\]\((cnnjax/[\w/]+\.py)\) ((?:`\w+`(?: and )?)+)", README),
)
def test_what_is_named_behind_a_link_is_there(path: str, names: str) -> None:
    source = (ROOT / path).read_text()
    for name in re.findall(r"\w+(?=`)", names):
        assert re.search(rf"^(def|class) {name}\b", source, re.MULTILINE), name
