"""The README's commands name scripts, configurations and fields that exist."""

import re
import shlex
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
# Scripts without a configuration, and their flags.
OPTIONS = {
    "predict.py": {"workdir", "export", "top_k", "json", "saliency", "invert"},
    "export.py": {"workdir", "to"},
}
DEFAULTS = {"cifar10.py": "configs/base.py", "mnist.py": "configs/mnist.py"}


def test_there_are_commands() -> None:
    assert len(COMMANDS) > 10
    assert README.count("<!-- ci: tests -->") == 1


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_can_be_run(command: str) -> None:
    _, script, *arguments = shlex.split(command)
    assert (ROOT / script).is_file()
    if Path(script).name in OPTIONS:
        given = {a[2:].split("=")[0] for a in arguments if a.startswith("--")}
        assert given <= OPTIONS[Path(script).name]
        return
    named = [a for a in arguments if a.startswith("--config=")]
    default = DEFAULTS.get(Path(script).name, "configs/base.py")
    path = named[0].split("=", 1)[1] if named else default
    argv = ["", f"--config={ROOT / 'experiments' / path}"]
    argv += [a for a in arguments if not a.startswith("--config=")]
    values = flags.FlagValues()
    flags.DEFINE_string("workdir", "", "", flag_values=values)
    made = config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=argv)
    assert values(argv) == [""]
    config.validate(made.value)


@pytest.mark.parametrize("path", re.findall(r"\]\(([^)#h][^)]*)\)", README))
def test_a_link_leads_somewhere(path: str) -> None:
    assert (ROOT / path).exists()
