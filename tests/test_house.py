"""The order of the house, its size, and what must stand nowhere; read, not run."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted([*ROOT.glob("cnnjax/**/*.py"), *ROOT.glob("experiments/**/*.py")])

# The order of the house: each may import what stands on an earlier line, and itself
# where it is a package. `run_report` is the one file of reporting that takes a run.
ORDER = (
    "errors prng losses metrics ops parallel",
    "models runtime",
    "config data optimizers",
    "recipe workdir",
    "state loading cli",
    "step",
    "updates evaluation",
    "reporting",
    "run",
    "training network run_report",
    "launch exporting",
    "experiments",
)
LEVEL = {unit: level for level, line in enumerate(ORDER) for unit in line.split()}
# The data know nothing of networks.
DATA_MAY_IMPORT = {"data", "prng", "errors", "runtime"}
TAKES_CONFIGS = {"config", "loading", "run", "launch", "cli", "experiments"}
TAKES_TENSORFLOW = {"tensorflow_import", "tf_pipeline", "tfds", "download"}
EXECUTES = {
    *("pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib"),
    *("marshal", "shelve", "torch"),
}


# PyTorch's networks are timed beside ours; nothing is read with it. CIFAR's pickles are
# read once their digest is known, by a reader that can build nothing but data.
MAY_EXECUTE = {
    "experiments.speed.torch_peer": {"torch"},
    "cnnjax.data.sources.pickled": {"pickle"},
}


def unit_of(module: str) -> str:
    """Returns the unit of a dotted module: "cnnjax.data.sources.npz" is of "data"."""
    first, *rest = module.split(".")
    if first != "cnnjax":
        return "experiments"
    return "run_report" if "run_report" in rest else rest[0] if rest else first


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


def imports(tree: ast.AST) -> Iterator[tuple[str, bool]]:
    """Yields every dotted module that is imported, and whether when used only."""
    lazy = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef)
        for node in ast.walk(function)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for name in node.names:
                yield name.name, id(node) in lazy
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            for name in node.names:
                # Whole, as `from cnnjax import state` is of the module state.
                yield f"{node.module}.{name.name}", id(node) in lazy


@pytest.fixture(params=FILES, ids=lambda path: str(path.relative_to(ROOT)))
def source(request: pytest.FixtureRequest) -> tuple[str, ast.AST]:
    return module_of(request.param), ast.parse(request.param.read_text())


def test_imports_go_one_way(source: tuple[str, ast.AST]) -> None:
    module, tree = source
    unit = unit_of(module)
    assert module == "cnnjax" or unit in LEVEL, f"give {unit} its place in ORDER"
    for imported, _ in imports(tree):
        if imported.split(".")[0] != "cnnjax" or imported == "cnnjax.__version__":
            continue
        other = unit_of(imported)
        if other != unit:
            assert LEVEL[other] < LEVEL[unit], f"{module} imports {imported}"
        if unit == "data":
            assert other in DATA_MAY_IMPORT, f"{module} imports {imported}"


def test_configurations_stay_at_the_top(source: tuple[str, ast.AST]) -> None:
    module, tree = source
    if unit_of(module) not in TAKES_CONFIGS:
        found = {imported.split(".")[0] for imported, _ in imports(tree)}
        assert not found & {"ml_collections", "absl"}


def test_tensorflow_is_imported_where_it_is_used(source: tuple[str, ast.AST]) -> None:
    module, tree = source
    may = module.split(".")[-1] in TAKES_TENSORFLOW
    for imported, lazily in imports(tree):
        if imported.split(".")[0] in ("tensorflow", "tensorflow_datasets"):
            assert may and lazily, f"{module} imports {imported}"
        if imported == "cnnjax.data.tf_pipeline":
            assert lazily, f"{module} imports TensorFlow's pipeline"


def test_nothing_is_executed_that_was_read(source: tuple[str, ast.AST]) -> None:
    """No pickle in any guise, and no evaluation of text: what is read is data."""
    module, tree = source
    found = {imported.split(".")[0] for imported, _ in imports(tree)}
    assert not found & EXECUTES - MAY_EXECUTE.get(module, set())
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            assert isinstance(node.value, ast.Constant), module
            assert node.value.value is False, module
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in {"eval", "exec", "compile", "__import__"}
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            if node.func.attr == "extractall":
                filters = [k.value for k in node.keywords if k.arg == "filter"]
                assert [ast.unparse(value) for value in filters] == ["'data'"]
            if node.func.attr == "import_module":
                assert module in ("cnnjax", "cnnjax.data.tensorflow_import")


# What one training run is read in.
CORE = (
    "prng losses metrics optimizers recipe state step parallel updates evaluation run",
    "training data/dataset data/sampling data/augment data/batches models/layers",
    "models/facts models/forward models/cifar",
)
# Their keywords are the fields of a recipe.
MANY_PARAMETERS = {"make_recipe", "make_optimizer"}


def parameters(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yields how many parameters each function of a file takes, without `self`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.name not in MANY_PARAMETERS:
            arguments = node.args
            named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
            count = sum(argument.arg not in ("self", "cls") for argument in named)
            yield count, node.name


def test_numbers_to_hold() -> None:
    """The library stays small enough to be read, and says how small it is."""
    texts = {
        str(path.relative_to(ROOT / "cnnjax").with_suffix("")): path.read_text()
        for path in FILES
        if path.is_relative_to(ROOT / "cnnjax")
    }
    lines = {name: text.count("\n") for name, text in texts.items()}
    most, function = max(
        found for text in texts.values() for found in parameters(ast.parse(text))
    )
    measured = {
        "lines": (sum(lines.values()), 14_599),
        "files": (len(lines), 88),
        "files directly in it": (sum("/" not in name for name in lines), 20),
        "lines of the core": (
            sum(lines[name] for line in CORE for name in line.split()),
            3_250,
        ),
        f"parameters ({function})": (most, 8),
        "rungs of imports": (len(ORDER), 12),
    }
    for name, (value, bound) in measured.items():
        print(f"{name}: {value:,} of at most {bound:,}")
    assert all(value <= bound for value, bound in measured.values()), measured


def test_help_need_not_wait() -> None:
    """Neither JAX nor TensorFlow is imported until something is to be run."""
    program = """
import sys
import cnnjax.cli, cnnjax.config
slow = {"jax", "flax", "optax", "orbax", "tensorflow", "tensorflow_datasets"}
print(sorted(slow & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], check=False, capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")
