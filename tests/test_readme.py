"""What the READMEs name exists; their commands run in experiments/test_readme.py."""

import json
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from absl import flags
from ml_collections import config_flags

from cnnjax import config

ROOT = Path(__file__).parent.parent
TEXTS = {
    name: (ROOT / name).read_text()
    for name in (
        "README.md",
        "experiments/README.md",
        "experiments/results/README.md",
        "cnnjax/README.md",
    )
}
README, _, RESULTS, HOUSE = TEXTS.values()
COMMANDS = dict.fromkeys(
    line[line.index("python experiments/") :]
    for text in TEXTS.values()
    for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    for line in block.splitlines()
    if "python experiments/" in line
)
GUIDE = ".github/CONTRIBUTING.md"
LINKS = [
    (name, link)
    for name, text in (*TEXTS.items(), (GUIDE, (ROOT / GUIDE).read_text()))
    for link in dict.fromkeys(re.findall(r"\]\(([^()\s]+)\)", text))
    if "://" not in link
]
NAMED = [
    (name, path, names)
    for name, text in TEXTS.items()
    for path, names in re.findall(r"\]\(([\w/.]+\.py)\) ((?:`\w+`(?: and )?)+)", text)
]
DEFAULTS = {
    "cifar10.py": "configs/base.py",
    "mnist.py": "configs/mnist.py",
    "search.py": "configs/base.py",
    "evaluate.py": "configs/base.py",
}


def test_there_are_commands() -> None:
    assert len(COMMANDS) > 20
    assert "".join(TEXTS.values()).count("<!-- ci: tests -->") == 1
    assert "<!-- ci: tests -->" in README


def test_the_first_readme_is_short() -> None:
    assert len(README.splitlines()) <= 250


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
    made = runpy.run_path(str(ROOT / "experiments" / path))["get_config"]()
    argv = [""]
    argv += [a for a in arguments if not a.startswith("--config=")]
    values = flags.FlagValues()
    flags.DEFINE_string("workdir", "", "", flag_values=values)
    flags.DEFINE_multi_string("vary", [], "", flag_values=values)  # search.py's
    config_flags.DEFINE_config_dict("config", made, flag_values=values, sys_argv=argv)
    assert values(argv) == [""]
    config.validate(made)


def anchors(text: str) -> set[str]:
    """Returns the anchors that GitHub gives the headings."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


@pytest.mark.parametrize(("name", "link"), LINKS)
def test_a_link_leads_somewhere(name: str, link: str) -> None:
    path, _, anchor = link.partition("#")
    target = (ROOT / name).parent / path if path else ROOT / name
    assert target.exists()
    assert not anchor or anchor in anchors(target.read_text())


@pytest.mark.parametrize(("name", "path", "names"), NAMED)
def test_what_is_named_behind_a_link_is_there(name: str, path: str, names: str) -> None:
    source = ((ROOT / name).parent / path).read_text()
    for word in re.findall(r"\w+(?=`)", names):
        assert re.search(rf"^(def|class) {word}\b", source, re.MULTILINE), word


def test_every_file_of_the_library_has_its_line() -> None:
    files = {
        str(path.relative_to(ROOT / "cnnjax"))
        for path in (ROOT / "cnnjax").rglob("*.py")
        if path.name != "__init__.py"
    }
    rooms = HOUSE.split("## The rooms")[1].split("\n## ")[0]
    listed = re.findall(r"^\| \[`([\w/.]+)`\]", rooms, re.MULTILINE)
    in_folders = set(re.findall(r"^\| \[.*?\]\(([\w/.]+)\)", rooms, re.MULTILINE))
    assert len(listed) == len(in_folders)
    assert in_folders == files


def test_the_network_of_one_s_own_is_one() -> None:
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    (source,) = (block for block in blocks if "class " in block)
    names: dict[str, Any] = {}
    exec(source, names)
    model: nn.Module = names["SmallCNN"](num_classes=7)
    images = jnp.zeros((2, 32, 32, 3))
    key = jax.random.key(0)
    logits, variables = jax.eval_shape(
        lambda: model.init_with_output(key, images, train=False)
    )
    assert logits.shape == (2, 7)
    assert variables.keys() == {"params", "batch_stats"}


def test_the_table_of_claims_is_that_of_the_file() -> None:
    from chapter import measure, output

    found = json.loads((ROOT / "experiments" / "results" / "claims.json").read_text())
    table = output.markdown(measure.best_rows(found["rows"].values()))
    assert f"{output.BEGIN}\n{table}\n{output.END}\n" in RESULTS
