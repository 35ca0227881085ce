"""Command lines of the scripts: their flags, and finding the configuration."""

import os
import re
import runpy
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags
from ml_collections.config_flags import tuple_parser

from cnnjax import config as configs
from cnnjax.errors import InputError, one_line, raised_at
from cnnjax.runtime.exits import exit_with
from cnnjax.workdir import files

USAGE = """\
--config=FILE           the configuration, a Python file with get_config(); looked for
                        from the current folder, then from the folder of the scripts
--config.FIELD=VALUE    any of its fields; cnnjax/config/schema.py lists them
--workdir=DIR           folder of the run [runs/<config>-<date-time>]; one that holds a
                        run of the same configuration goes on with it"""

USAGE_ON_RUN = """\
--workdir=DIR           folder of a run
--config.FIELD=VALUE    in place of the run's own, above all data.name and data.dir"""

_DEFINE: dict[type, Callable[..., Any]] = {
    str: flags.DEFINE_string,
    int: flags.DEFINE_integer,
    bool: flags.DEFINE_boolean,
}


class _TupleParser(tuple_parser.TupleParser):
    """Reads the fields that are tuples, see `config.parse_tuple`."""

    def parse(self, argument: Any) -> tuple[Any, ...]:
        """Returns the tuple that an argument, or the field's default, stands for."""
        if isinstance(argument, str):
            return configs.parse_tuple(argument)
        parsed: tuple[Any, ...] = super().parse(argument)
        return parsed


config_flags.register_flag_parser_for_type(tuple, _TupleParser())


def main(
    run: Callable[..., None],
    *,
    doc: str | None,
    default_config: str,
    many: Sequence[str] = (),
) -> None:
    """Runs a script that trains: parses its flags, calls `run`, exits (`exit_with`).

    Args:
        run: takes the validated configuration, the value of `--workdir`, and by name
            the list of values of each flag in `many`.
        doc: the script's docstring, printed by `--help`.
        default_config: the value of `--config` if it is not given.
        many: further flags of the script, which can be given several times.
    """

    def parse_and_run(argv: Sequence[str]) -> None:
        values = flags.FlagValues()
        argv = with_path(argv, default_config)
        made = _made_by(Path(argv.pop(1).split("=", 1)[1]))
        with _flag_errors():  # this already looks up the fields in argv
            config = config_flags.DEFINE_config_dict(
                "config", made, flag_values=values, sys_argv=argv
            )
        workdir = flags.DEFINE_string("workdir", "", "", flag_values=values)
        for name in many:
            flags.DEFINE_multi_string(name, [], "", flag_values=values)
        _parse(values, argv)
        configs.validate(config.value)
        given = {name: values[name].value for name in many}
        run(config.value.lock(), os.path.expanduser(workdir.value), **given)

    exit_with(parse_and_run, _usage(doc, USAGE))


def main_on_run(
    run: Callable[..., None], *, doc: str | None, **choices: Sequence[str]
) -> None:
    """Runs a script about one existing run, and exits as `main` does.

    Args:
        run: takes the run's stored configuration, changed by `--config.FIELD`, its
            folder, and by name the value of each of `choices`.
        doc: the script's docstring, printed by `--help`.
        **choices: flag -> its possible values, the default first.
    """

    def on_one(found: list[tuple[Path, ConfigDict]], **chosen: str) -> None:
        if len(found) > 1:
            raise InputError(f"got {len(found)} times --workdir=DIR, need one run")
        ((workdir, config),) = found
        run(config, workdir, **chosen)

    main_on_runs(on_one, doc=doc, **choices)


def main_on_runs(
    run: Callable[..., None], *, doc: str | None, **choices: Sequence[str]
) -> None:
    """Runs a script about existing runs, and exits as `main` does.

    `run` takes a list with the folder and configuration of each run; otherwise the
    arguments are as for `main_on_run`.
    """

    def flag_values() -> flags.FlagValues:
        values = flags.FlagValues()
        flags.DEFINE_multi_string("workdir", [], "", flag_values=values)
        for name, allowed in choices.items():
            flags.DEFINE_enum(name, allowed[0], allowed, "", flag_values=values)
        return values

    def parse_and_run(argv: Sequence[str]) -> None:
        named, expand = flag_values(), os.path.expanduser
        with _flag_errors():
            named(argv, known_only=True)
        given = [
            part
            for value in named["workdir"].value or ()
            for part in ([value] if os.path.isdir(expand(value)) else value.split(","))
        ]
        if not all(given) or not given:
            raise InputError("got no --workdir=DIR, need the folder of a run")
        found = []
        for folder in dict.fromkeys(Path(expand(part)) for part in given):
            stored = configs.from_stored(files.read_json(folder / files.CONFIG))
            values = flag_values()
            with _flag_errors():  # this already looks up the fields in argv
                config = config_flags.DEFINE_config_dict(
                    "config", stored, flag_values=values, sys_argv=argv
                )
            _parse(values, argv)
            configs.validate(config.value)
            found.append((folder, config.value.lock()))
        run(found, **{name: named[name].value for name in choices})

    exit_with(parse_and_run, _usage(doc, USAGE_ON_RUN))


def main_with(
    run: Callable[..., None],
    *,
    doc: str | None,
    options: Mapping[str, str | int | bool],
    takes_arguments: bool = False,
) -> None:
    """Runs a script that takes no configuration, and exits as `main` does.

    Args:
        run: takes the list of positional arguments, and each option by name.
        doc: the script's docstring, which lists the options; printed by `--help`.
        options: name -> default, which has the type of the option's values.
        takes_arguments: whether positional arguments are allowed.
    """

    def parse_and_run(argv: Sequence[str]) -> None:
        values = flags.FlagValues()
        values.set_gnu_getopt()  # flags may follow the arguments
        for name, default in options.items():
            define = _DEFINE[type(default)]
            define(name, default, "", flag_values=values)
        arguments = _parse(values, argv, takes_arguments=takes_arguments)
        given = {name: values[name].value for name in options}
        for name, value in given.items():
            if isinstance(value, str):  # the shell expands no ~ after --name=
                given[name] = os.path.expanduser(value)
        run(arguments, **given)

    exit_with(parse_and_run, _usage(doc))


def _usage(doc: str | None, flags_of_all: str = "") -> str:
    """Returns the text of `--help`; `doc` is None under `python -OO`."""
    return f"{(doc or '').strip()}\n\n{flags_of_all}".strip()


def _parse(
    values: flags.FlagValues, argv: Sequence[str], *, takes_arguments: bool = False
) -> list[str]:
    with _flag_errors():
        positional: list[str] = values(argv)[1:]
    if positional and not takes_arguments:
        raise InputError(f"got {positional[0]!r}, need flags only; see --help")
    return positional


def _made_by(path: Path) -> ConfigDict:
    """Returns the configuration that the `get_config` of a file makes.

    Raises:
        InputError: the file, which is a program, fails, or it makes something else.
    """
    try:
        get_config = runpy.run_path(str(path)).get("get_config")
        made = get_config() if callable(get_config) else None
    except InputError:
        raise
    except (Exception, SystemExit) as error:  # a program may raise anything
        raise InputError(
            f"{path} fails with {type(error).__name__}: {one_line(error)}"
            f"{raised_at(error)}; correct it, or name another --config"
        ) from error
    if not isinstance(made, ConfigDict):
        got = "has no get_config()"
        if callable(get_config):
            got = f"returns {made!r:.40} from get_config()"
        raise InputError(
            f"{path} {got}, need get_config() that returns a ConfigDict; begin it with"
            " cnnjax.default_config, as the files of experiments/configs do"
        )
    return made


@contextmanager
def _flag_errors() -> Iterator[None]:
    try:
        yield
    except (AttributeError, KeyError) as error:
        # ml_collections quotes its message, and a KeyError quotes that again.
        text = " ".join(re.sub(r"\\n|[\\'\"]", " ", str(error)).split())
        field, _, near = text.rpartition("lookup: ")[2].partition(" Did you mean ")
        meant = f", perhaps {near.split()[0]} is meant" if near else ""
        raise InputError(
            f"the configuration has no field {field}{meant};"
            " cnnjax/config/schema.py lists them"
        ) from error
    except Exception as error:  # ml_collections raises whatever its parsers raise
        message = f"{type(error).__name__}: {one_line(error)}"
        if "as a ConfigDict" in message:
            message = "got a value for a section of the configuration, need one for a"
            message += " field in it, such as --config.optim.name=sgd"
        raise InputError(f"{message}; see --help") from error


def with_path(argv: Sequence[str], default: str) -> list[str]:
    """Returns `argv` with `--config`, an existing file, right after the script.

    The file, by default `default`, is looked for from the current folder first, then
    from the folder of the scripts.

    Raises:
        InputError: there is no such file, or several are named.
    """
    argv, path = list(argv), default
    # `--config` must come before the fields that override it.
    at, until, given = 1, 1, 0
    for i, argument in enumerate(argv[1:], start=1):
        if argument in ("--config", "-config") and i + 1 < len(argv):
            at, until, path, given = i, i + 2, argv[i + 1], given + 1
        elif argument.startswith(("--config=", "-config=")):
            at, until, path = i, i + 1, argument.split("=", 1)[1]
            given += 1
    if given > 1:
        raise InputError(f"got --config {given} times, need one file; leave out others")
    scripts, file = Path(argv[0]).resolve().parent, os.path.expanduser(path)
    candidates = [Path(file).resolve(), scripts / file]
    for candidate in candidates:
        if os.path.isfile(candidate):  # not where it may not be looked for, either
            del argv[at:until]
            return [argv[0], f"--config={candidate}", *argv[1:]]
    looked = " nor at ".join(str(candidate) for candidate in candidates)
    raise InputError(f"got --config={path}, found neither at {looked}; name a file")


def name(default: str) -> str:
    """Returns the stem of the config file named on the command line."""
    path = with_path(sys.argv, default)[1].split("=", 1)[1]
    return Path(path).stem


def recipe(stem: str) -> ConfigDict:
    """Returns the configuration of `configs/<stem>.py` in the folder of the scripts."""
    path = Path(sys.argv[0]).resolve().parent / "configs" / f"{stem}.py"
    return _made_by(path)
