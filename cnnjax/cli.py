"""What the scripts share: finding the config, errors to exit codes, the backend."""

import ctypes
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict, config_flags

from cnnjax import config as configs
from cnnjax.errors import InputError, RunError

USAGE = """\
--config=FILE           the configuration, a Python file with get_config(); looked for
                        from the current folder, then from the folder of the scripts
--config.FIELD=VALUE    any of its fields; cnnjax/config.py lists them with their ranges
--workdir=DIR           folder of the run [runs/<config>-<date-time>]; one that holds a
                        run of the same configuration goes on with it"""

USAGE_ON_RUN = """\
--workdir=DIR           folder of a run; it is left as it is
--config.FIELD=VALUE    in place of the run's own, above all data.name and data.dir"""

# <malloc.h>: M_MMAP_MAX (no block is mapped by itself), M_TRIM_THRESHOLD and M_TOP_PAD
# in bytes, and M_ARENA_MAX, because the other arenas follow rules of their own.
MALLOC_OPTIONS = {-4: 0, -1: 1 << 30, -2: 64 << 20, -8: 1}

EXIT_DONE, EXIT_FAILED, EXIT_BAD_INPUT, EXIT_CTRL_C = 0, 1, 2, 130


def main(
    run: Callable[[ConfigDict, str], None], *, doc: str, default_config: str
) -> None:
    """Runs a script that trains: parses its flags, calls `run`, and exits.

    0 done and `--help`; 2 bad usage, config or input; 1 failed while running; 143 and
    130 stopped by SIGTERM and Ctrl-C. Errors are one line on standard error.

    Args:
        run: takes the validated configuration and the value of `--workdir`.
        doc: the script's docstring, printed by `--help`.
        default_config: for when `--config` is not given.
    """

    def parse_and_run(argv: Sequence[str]) -> None:
        values = flags.FlagValues()
        argv = _with_config_path(argv, default_config)
        config = config_flags.DEFINE_config_file(
            "config", flag_values=values, sys_argv=argv
        )
        workdir = flags.DEFINE_string("workdir", "", "", flag_values=values)
        _parse(values, argv)
        configs.validate(config.value)
        run(config.value.lock(), workdir.value)

    _exit_with(parse_and_run, f"{doc.strip()}\n\n{USAGE}")


def main_on_run(run: Callable[[ConfigDict, Path], None], *, doc: str) -> None:
    """Runs a script about a run that was trained before, and exits as `main` does.

    Args:
        run: takes the run's stored configuration, with the fields that were given
            in place of its own, and its folder.
        doc: the script's docstring, printed by `--help`.
    """

    def parse_and_run(argv: Sequence[str]) -> None:
        # Here and not above: it brings JAX, which --help need not wait for.
        from cnnjax import inference

        values = flags.FlagValues()
        workdir = flags.DEFINE_string("workdir", "", "", flag_values=values)
        named = flags.FlagValues()
        flags.DEFINE_string("workdir", "", "", flag_values=named)
        with _flag_errors():
            named(argv, known_only=True)
        if not named["workdir"].value:
            raise InputError("got no --workdir=DIR, need the folder of a run")
        where = Path(named["workdir"].value)
        stored = configs.from_stored(inference.stored_config(where))
        with _flag_errors():  # it looks for the fields that are given already here
            config = config_flags.DEFINE_config_dict(
                "config", stored, flag_values=values, sys_argv=argv
            )
        _parse(values, argv)
        configs.validate(config.value)
        run(config.value.lock(), Path(workdir.value))

    _exit_with(parse_and_run, f"{doc.strip()}\n\n{USAGE_ON_RUN}")


def main_with_flags(
    run: Callable[[dict[str, str]], None], *, doc: str, usage: Mapping[str, str]
) -> None:
    """Runs a script that has no configuration, and exits as `main` does.

    Args:
        run: takes the value of each flag, "" where it was not given.
        doc: the script's docstring, printed by `--help`.
        usage: flag -> what it says, printed by `--help`.
    """

    def parse_and_run(argv: Sequence[str]) -> None:
        values = flags.FlagValues()
        given = {
            name: flags.DEFINE_string(name, "", "", flag_values=values)
            for name in usage
        }
        _parse(values, argv)
        run({name: flag.value for name, flag in given.items()})

    lines = [f"{f'--{name}=':<24}{what}" for name, what in usage.items()]
    _exit_with(parse_and_run, "\n".join([doc.strip(), "", *lines]))


def _exit_with(parse_and_run: Callable[[Sequence[str]], None], usage: str) -> None:
    code = EXIT_DONE
    try:
        if {"--help", "-help", "-h", "--helpfull", "--helpshort"} & set(sys.argv):
            print(usage)
        else:
            parse_and_run(sys.argv)
    except InputError as error:
        code = _complain(error, EXIT_BAD_INPUT)
    except (RunError, OSError, MemoryError) as error:
        code = _complain(error, getattr(error, "exit_code", EXIT_FAILED))
    except KeyboardInterrupt:
        code = _complain("stopped by Ctrl-C", EXIT_CTRL_C)
    sys.stdout.flush()
    sys.exit(code)


def _complain(error: object, code: int) -> int:
    print(f"error: {error}", file=sys.stderr)
    return code


def _parse(values: flags.FlagValues, argv: Sequence[str]) -> None:
    with _flag_errors():
        positional = values(argv)[1:]
    if positional:
        raise InputError(f"got {positional[0]!r}, need flags only; see --help")


@contextmanager
def _flag_errors() -> Iterator[None]:
    try:
        yield
    except (AttributeError, KeyError) as error:
        field = str(error).strip("\"'")
        raise InputError(
            f"the configuration has no field {field}; cnnjax/config.py lists them"
        ) from error
    except Exception as error:  # The config is a program; it may raise anything.
        message = " ".join(str(error).split())
        raise InputError(f"{type(error).__name__}: {message}; see --help") from error


def _with_config_path(argv: Sequence[str], default: str) -> list[str]:
    """Returns `argv` with `--config` pointing at a file that exists.

    Looked for from the current folder first, then from the folder of the scripts.
    """
    argv, path = list(argv), default
    # It must stand before the fields that override it.
    at, until = 1, 1
    for i, argument in enumerate(argv[1:], start=1):
        if argument in ("--config", "-config") and i + 1 < len(argv):
            at, until, path = i, i + 2, argv[i + 1]
        elif argument.startswith(("--config=", "-config=")):
            at, until, path = i, i + 1, argument.split("=", 1)[1]
    scripts = Path(argv[0]).resolve().parent
    candidates = [Path(path).resolve(), scripts / path]
    for candidate in candidates:
        if candidate.is_file():
            del argv[at:until]
            return [argv[0], f"--config={candidate}", *argv[1:]]
    looked = " nor at ".join(str(candidate) for candidate in candidates)
    raise InputError(f"got --config={path}, found neither at {looked}; name a file")


def config_name(default: str) -> str:
    """Returns the stem of the config file named on the command line."""
    path = _with_config_path(sys.argv, default)[1].split("=", 1)[1]
    return Path(path).stem


def start_backend() -> None:
    """Makes each core of a CPU a device of JAX; call it before anything asks for one.

    XLA runs parts of a step on one thread; a batch split over the cores keeps them all
    busy. Without effect where a GPU is the default backend.
    """
    import jax

    _keep_freed_memory()
    if "JAX_NUM_CPU_DEVICES" not in os.environ:
        jax.config.update("jax_num_cpu_devices", _num_cores())


def _num_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _keep_freed_memory() -> None:
    """Has the C library keep what a step frees for the next one.

    XLA allocates the results of every step anew. glibc gives large blocks back to the
    kernel, which maps and zeroes their pages again at the next step: 40,000 page faults
    a step of the CIFAR network, which took 1.6 to 2.0 times as long (two cores, batch
    128). Nothing is done where the C library is another one.
    """
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):
        for option, value in MALLOC_OPTIONS.items():
            library.mallopt(option, value)
