"""No option is forgotten, pins hold and are given back, and records compare."""

import flax
import jax
import pytest

from cnnjax.errors import InputError
from cnnjax.runtime import environment

# A value of each pinned option that is not the pinned one.
OTHER = {
    "jax_enable_x64": True,
    "jax_default_prng_impl": "rbg",
    "jax_threefry_partitionable": False,
    "jax_random_seed_offset": 7,
    "jax_enable_custom_prng": True,
    "jax_legacy_prng_key": "error",
    "jax_numpy_dtype_promotion": "strict",
    "jax_disable_jit": True,
    "jax_no_tracing": True,
    "jax_no_execution": True,
    "jax_default_device": "gpu",
    "jax_transfer_guard": "disallow",
    "jax_transfer_guard_host_to_device": "log",
    "jax_transfer_guard_device_to_device": "disallow",
    "jax_transfer_guard_device_to_host": "log",
    "flax_fix_rng_separator": True,
    "flax_return_frozendict": True,
}


def config_of(option):
    return flax.config if option.startswith("flax_") else jax.config


@pytest.fixture
def changed():
    """Every pinned option has another value during the test."""
    pinned = environment.PINNED | environment.PINNED_FLAX
    assert pinned.keys() == OTHER.keys()
    before = {option: getattr(config_of(option), option) for option in OTHER}
    for option, value in OTHER.items():
        config_of(option).update(option, value)
    yield
    for option, value in before.items():
        config_of(option).update(option, value)


def test_every_option_is_in_one_table():
    """If a new version fails here: find out what its options do, and sort them in."""
    tables = (
        environment.PINNED.keys(),
        environment.PINNED_FLAX.keys(),
        environment.names(environment.RECORDED),
        environment.names(environment.HARMLESS),
    )
    assert sum(map(len, tables)) == len(set().union(*tables)), "some are in two"
    flaxes = {name for name in dir(flax.config) if name.startswith("flax_")}
    found = jax.config.values.keys() | flaxes
    assert found - set().union(*tables) == set()
    # The package says what a run's options are, so it must know where it stands.
    assert len(found & environment.names(environment.RECORDED)) > 30


def test_pins_hold_inside_and_settings_come_back(changed):
    with environment.pinned():
        for option, value in (environment.PINNED | environment.PINNED_FLAX).items():
            found = getattr(config_of(option), option)
            assert getattr(found, "value", found) == value, option
        assert (jax.numpy.ones(3) + 1).dtype == "float32"  # no guard is left
    for option, value in OTHER.items():
        found = getattr(config_of(option), option)
        assert getattr(found, "value", found) == value, option


def test_settings_come_back_after_an_error(changed):
    with pytest.raises(ZeroDivisionError), environment.pinned():
        raise ZeroDivisionError
    assert jax.config.jax_random_seed_offset == 7


def test_a_context_manager_around_a_run_is_refused():
    with (
        jax.enable_x64(True),
        pytest.raises(InputError, match=r"got jax_enable_x64=True of a context"),
        environment.pinned(),
    ):
        pass
    assert not jax.config.jax_enable_x64


def test_what_the_environment_set_is_named(changed, monkeypatch):
    monkeypatch.setenv("JAX_ENABLE_X64", "1")
    monkeypatch.setenv("JAX_LOG_COMPILES", "1")
    assert environment.pin() == ["JAX_ENABLE_X64=1"]
    assert environment.pin() == []


def test_flags_of_xla_are_recorded_by_name(monkeypatch, tmp_path):
    flags = "--xla_cpu_enable_fast_math --xla_gpu_autotune_level=0 --xla_dump_to=x"
    (tmp_path / "flags").write_text(flags)
    for given in (f"{flags} --xla_dump_hlo_as_text", str(tmp_path / "flags")):
        monkeypatch.setenv("XLA_FLAGS", given)
        for platform, expected in (
            ("cpu", {"XLA_FLAGS --xla_cpu_enable_fast_math": "true"}),
            (
                "gpu",
                {
                    "XLA_FLAGS --xla_cpu_enable_fast_math": "true",
                    "XLA_FLAGS --xla_gpu_autotune_level": "0",
                },
            ),
        ):
            found = environment.record(platform)
            assert {k: v for k, v in found.items() if "XLA_FLAGS" in k} == expected


def test_differences_are_named_as_they_are_set(monkeypatch):
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    before = environment.record("gpu")
    monkeypatch.setenv("XLA_FLAGS", "--xla_gpu_autotune_level=0")
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")
    with jax.default_matmul_precision("highest"):
        after = environment.record("gpu")
    assert environment.differences(before, before, same_jax=True) == []
    assert environment.differences(before, after, same_jax=True) == [
        "JAX_DEFAULT_MATMUL_PRECISION unset -> highest",
        "NVIDIA_TF32_OVERRIDE unset -> 0",
        "XLA_FLAGS --xla_gpu_autotune_level unset -> 0",
    ]
    # Another version has other options; what was set by hand is compared still.
    assert len(environment.differences(before, after, same_jax=False)) == 2
