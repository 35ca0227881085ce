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
# Options that change no bit of a result, by what they are about.
HARMLESS = {
    "order and time of work": (
        "jax_cpu_enable_async_dispatch jax_sort_devices_by_process_index",
        "jax_use_cpp_shard_args",
    ),
    "messages and checks, which raise or change nothing": (
        "jax_array_garbage_collection_guard jax_captured_constants_report_frames",
        "jax_captured_constants_warn_bytes jax_check_tracer_leaks",
        "jax_compiler_detailed_logging_min_ops jax_debug_infs jax_debug_key_reuse",
        "jax_debug_leaked_clients_on_clear_backends jax_debug_log_modules",
        "jax_debug_nans jax_disable_bwd_checks jax_disable_vmap_shmap_error",
        "jax_disallow_mesh_context_manager jax_distributed_debug jax_dump_ir_modes",
        "jax_dump_ir_to jax_enable_checks jax_experimental_unsafe_xla_runtime_errors",
        "jax_explain_cache_misses jax_hlo_source_file_canonicalization_regex",
        "jax_include_debug_info_in_dumps jax_include_full_tracebacks_in_locations",
        "jax_log_checkpoint_residuals jax_log_compiles jax_logging_level",
        "jax_mutable_array_checks jax_numpy_rank_promotion jax_pprint_use_color",
        "jax_raise_on_ppermute_sort_diff jax_send_traceback_to_runtime",
        "jax_source_url_schema jax_thread_guard jax_traceback_filtering",
        "jax_traceback_in_locations_limit jax_tracer_error_num_traceback_frames",
    ),
    "the cache of programs, whose key covers what they are made of": (
        "jax_compilation_cache_check_contents jax_compilation_cache_dir",
        "jax_compilation_cache_include_metadata_in_key jax_compilation_cache_max_size",
        "jax_enable_compilation_cache jax_persistent_cache_min_compile_time_secs",
        "jax_persistent_cache_min_entry_size_bytes jax_raise_persistent_cache_errors",
        "jax_remove_custom_partitioning_ptr_from_cache_key",
        "jax_share_binary_between_hosts jax_share_binary_between_hosts_timeout_ms",
    ),
    "which devices there are, and how processes find each other": (
        "jax_backend_target jax_check_proxy_envs",
        "jax_cpu_get_global_topology_timeout_minutes",
        "jax_cpu_get_local_topology_timeout_minutes",
        "jax_cross_host_transfer_socket_address",
        "jax_cross_host_transfer_timeout_seconds",
        "jax_cross_host_transfer_transfer_size jax_cross_host_transport_addresses",
        "jax_cuda_visible_devices jax_distributed_verify_secure_credentials",
        "jax_enable_preemption_service jax_enable_recoverability",
        "jax_force_dcn_cross_host_transfers jax_mock_gpu_topology jax_mtls_ca_file",
        "jax_mtls_cert_file jax_mtls_key_file jax_mtls_peer_uri_prefix",
        "jax_num_cpu_devices jax_oneapi_visible_devices jax_platform_name",
        "jax_platforms jax_rocm_visible_devices jax_xla_backend",
        "mock_num_gpu_processes",
    ),
    "parts of JAX and Flax that are not used here": (
        "flax_always_shard_variable flax_array_ref flax_filter_frames",
        "flax_hijax_variable flax_max_repr_depth flax_preserve_adopted_names",
        "flax_profile flax_pytree_module flax_use_flaxlib",
        "flax_use_orbax_checkpointing jax2tf_associative_scan_reductions",
        "jax2tf_default_native_serialization jax_export_calling_convention_version",
        "jax_export_deserialize_expired_versions",
        "jax_export_ignore_forward_compatibility jax_mosaic_allow_hlo",
        "jax_mosaic_unzip_debug_locations jax_pallas_auto_assign_collective_ids",
        "jax_pallas_auto_assign_collective_ids_limit jax_pallas_enable_debug_checks",
        "jax_pallas_poison_buffers jax_pallas_use_mosaic_gpu",
        "jax_pallas_verbose_errors jax_serialization_version",
    ),
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
        environment.names(HARMLESS),
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
