"""What the environment may not change: a run is a function of configuration and seed.

JAX and Flax read an option from the environment variable of its name in capitals.
An option of theirs is in `PINNED` or `PINNED_FLAX`, with the value that it has in every
run; or in `RECORDED`, as it can change a bit of a result, and a run goes on only with
the same; or it is harmless. `tests/runtime/test_environment.py` lists those that are,
and fails where an installed version has others.
"""

import enum
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cnnjax.errors import InputError

# Options of JAX that would change what a run computes, or keep it from computing.
PINNED: dict[str, Any] = {
    "jax_enable_x64": False,
    "jax_default_prng_impl": "threefry2x32",
    "jax_threefry_partitionable": True,
    "jax_random_seed_offset": 0,
    "jax_enable_custom_prng": False,
    "jax_legacy_prng_key": "allow",
    "jax_numpy_dtype_promotion": "standard",
    # A run compiles its steps, on devices that its configuration chooses, and copies
    # arrays to them and back where it needs them.
    "jax_disable_jit": False,
    "jax_no_tracing": False,
    "jax_no_execution": False,
    "jax_default_device": None,
    "jax_transfer_guard": None,
    "jax_transfer_guard_host_to_device": None,
    "jax_transfer_guard_device_to_device": None,
    "jax_transfer_guard_device_to_host": None,
}
# Those of Flax: the keys that parameters are drawn with, and the type of their tree.
PINNED_FLAX: dict[str, Any] = {
    "flax_fix_rng_separator": False,
    "flax_return_frozendict": False,
}

# Options that choose among algorithms, programs or optimisations, by what they choose.
# The precision of products is one of them, as it is a choice of whoever has a GPU.
RECORDED = {
    "precision and the form of functions": (
        "jax_accurate_erf_inv jax_allow_f16_reductions jax_default_matmul_precision",
        "jax_explicit_x64_dtypes jax_high_dynamic_range_gumbel jax_softmax_custom_jvp",
        "jax_use_hlo_logistic_lowering",
    ),
    "derivatives": (
        "jax_compiler_enable_remat_pass jax_custom_jvp3 jax_custom_vjp3",
        "jax_refs_to_pins jax_remat3 jax_remat_barrier_no_cotangents jax_scan3",
        "jax_use_direct_linearize",
    ),
    "checks that become part of a program": (
        "check_vma jax_auto_pcast jax_check_static_indices",
        "jax_error_checking_behavior_divide jax_error_checking_behavior_nan",
        "jax_error_checking_behavior_oob",
    ),
    "optimisation of programs": (
        "eager_constant_folding jax_compilation_cache_expect_pgle",
        "jax_disable_most_optimizations jax_embedded_constants_max_bytes",
        "jax_enable_pgle jax_exec_time_optimization_effort jax_memory_fitting_effort",
        "jax_memory_fitting_level jax_optimization_level",
        "jax_persistent_cache_enable_xla_caches jax_pgle_aggregation_percentile",
        "jax_pgle_profiling_runs jax_pjrt_client_create_options",
        "jax_use_simplified_jaxpr_constants jax_xla_profile_version",
    ),
    "sums over devices": (
        "jax_cpu_collectives_implementation jax_remove_size_one_mesh_axis_from_type",
        "jax_use_rgv3 jax_use_shardy_partitioner",
    ),
    "kernels": (
        "jax_bcoo_cusparse_lowering jax_ragged_dot_use_gpu_pallas_triton_lowering",
        "jax_ragged_dot_use_ragged_dot_instruction jax_threefry_gpu_kernel_lowering",
        "jax_use_emit_pipeline_primitive jax_use_magma",
    ),
}

# Variables of XLA, oneDNN, NumPy and TensorFlow that can change a bit: sets of
# instructions, threads among which a sum is divided, and precisions.
VARIABLES = (
    *("JAX_ENABLE_CHLO_SCAN", "LIBTPU_INIT_ARGS", "NPROC"),
    *("DNNL_DEFAULT_FPMATH_MODE", "DNNL_MAX_CPU_ISA"),
    *("ONEDNN_DEFAULT_FPMATH_MODE", "ONEDNN_MAX_CPU_ISA"),
    *("NPY_DISABLE_CPU_FEATURES", "NPY_ENABLE_CPU_FEATURES"),
    *("TF_ENABLE_ONEDNN_OPTS", "TF_XLA_FLAGS"),
)
GPU_VARIABLES = ("CUBLAS_WORKSPACE_CONFIG", "NVIDIA_TF32_OVERRIDE")
# What XLA writes about its programs, and how many devices it makes of a CPU, which is
# among the devices of the manifest.
HARMLESS_XLA_FLAGS = (
    *("--xla_dump_", "--xla_force_host_platform_device_count", "--xla_hlo_profile"),
    *("--xla_detailed_logging", "--xla_embed_ir_in_executable"),
)


def names(table: Mapping[str, Sequence[str]]) -> set[str]:
    """Returns the options in a table such as `RECORDED`."""
    return {name for lines in table.values() for name in " ".join(lines).split()}


def pin() -> list[str]:
    """Gives every pinned option its value, in the whole process.

    Returns:
        the environment variables that are therefore without effect, "NAME=value".

    Raises:
        InputError: a context manager of JAX holds another value in this thread.
    """
    overruled = []
    for config, pinned in _pinned():
        for option, value in pinned.items():
            if _plain(getattr(config, option)) == value:
                continue
            config.update(option, value)
            found, name = getattr(config, option), option.upper()
            if _plain(found) != value:
                raise InputError(
                    f"got {option}={_plain(found)} of a context manager, need"
                    f" {value}, with which alone a run depends on nothing but its"
                    " configuration; call this outside of it"
                )
            if name in os.environ:
                overruled.append(f"{name}={os.environ[name]}")
    return overruled


@contextmanager
def pinned() -> Iterator[None]:
    """Gives every pinned option its value inside the block, in every thread.

    So a program that uses this package as a library gets its own settings back.

    Raises:
        InputError: as `pin`.
    """
    before = [
        (config, {option: getattr(config, option) for option in pinned})
        for config, pinned in _pinned()
    ]
    try:
        pin()
        yield
    finally:
        for config, values in before:
            for option, value in values.items():
                if getattr(config, option) != value:
                    config.update(option, value)


def _pinned() -> list[tuple[Any, dict[str, Any]]]:
    # Imported when used: `--help` needs neither.
    import flax
    import jax

    return [
        (config, {k: v for k, v in pinned.items() if hasattr(config, k)})
        for config, pinned in ((jax.config, PINNED), (flax.config, PINNED_FLAX))
    ]


def _plain(value: Any) -> Any:
    """Returns an option's value as JSON has it; of an enum, the member's name."""
    return value.name.lower() if isinstance(value, enum.Enum) else value


def record(platform: str) -> dict[str, Any]:
    """Returns what can change a bit of a result on a platform, such as "cpu".

    It holds the value of every option in `RECORDED` by its variable's name, those of
    `VARIABLES` that are set, and each flag of XLA as "XLA_FLAGS --name".
    """
    import jax

    variables = VARIABLES if platform == "cpu" else VARIABLES + GPU_VARIABLES
    found = {
        option.upper(): _plain(getattr(jax.config, option))
        for option in sorted(names(RECORDED))
        if hasattr(jax.config, option)
    }
    found |= {name: os.environ[name] for name in variables if name in os.environ}
    for flag in xla_flags():
        name, _, value = flag.partition("=")
        other_platform = platform == "cpu" and name.startswith("--xla_gpu_")
        if not other_platform and not name.startswith(HARMLESS_XLA_FLAGS):
            found[f"XLA_FLAGS {name}"] = value or "true"
    return found


def xla_flags() -> list[str]:
    """Returns XLA's flags; like XLA it takes a value without a dash for a file."""
    given = os.environ.get("XLA_FLAGS", "")
    if given.strip() and not given.lstrip().startswith("-"):
        given = Path(given).read_text()
    return given.split()


def differences(
    stored: Mapping[str, Any], found: Mapping[str, Any], *, same_jax: bool
) -> list[str]:
    """Returns how two `record`s differ, as "NAME before -> after".

    Versions of JAX differ in their options and defaults, so that these are compared
    only with `same_jax`.
    """
    options = {option.upper() for option in names(RECORDED)}
    return [
        f"{name} {_spell(stored.get(name))} -> {_spell(found.get(name))}"
        for name in sorted(stored.keys() | found.keys())
        if stored.get(name) != found.get(name) and (same_jax or name not in options)
    ]


def _spell(value: Any) -> str:
    return "unset" if value is None else str(value)
