"""Counting the kernels of a program, and reading which of them took the time."""

import jax
import jax.numpy as jnp
import pytest

from speed import kernels
from speed.kernels import Event

# Two kernels of its own, three rounds of a loop with one, a choice between one and two,
# a call of one, two halves of a copy, and a small call, which a CPU compiles as one.
PROGRAM = """HloModule small, is_scheduled=true

%fused (p: f32[4]) -> f32[4] {
  %p = f32[4]{0} parameter(0)
  ROOT %negate = f32[4]{0} negate(%p)
}

%body (q: (s32[], f32[4])) -> (s32[], f32[4]) {
  %q = (s32[], f32[4]{0}) parameter(0)
  %x = f32[4]{0} get-tuple-element(%q), index=1
  %in_loop = f32[4]{0} fusion(%x), kind=kLoop, calls=%fused
  ROOT %next = (s32[], f32[4]{0}) tuple(%i, %in_loop)
}

%condition (q: (s32[], f32[4])) -> pred[] {
  ROOT %less = pred[] compare(%i, %n), direction=LT
}

%one (x: f32[4]) -> f32[4] {
  ROOT %once = f32[4]{0} fusion(%x), kind=kLoop, calls=%fused
}

%two (x: f32[4]) -> f32[4] {
  %first = f32[4]{0} copy(%x)
  ROOT %second = f32[4]{0} fusion(%first), kind=kLoop, calls=%fused
}

ENTRY %main (a: f32[4]) -> (f32[4], f32[4]) {
  %a = f32[4]{0:S(5)} parameter(0)
  %zero = s32[] constant(0)
  %product = f32[4]{0} dot(%a, %a), lhs_contracting_dims={0}
  %library = (f32[4]{0:S(5)}, /*index=1*/u8[8]{0}) custom-call(%a)
  %loop = (s32[], f32[4]{0}) while(%t), condition=%condition, body=%body, \
backend_config={"known_trip_count":{"n":"3"}}
  %choice = f32[4]{0} conditional(%zero, %a, %a), branch_computations={%one, %two}
  %call = f32[4]{0} call(%a), to_apply=%one
  %small = f32[4]{0} call(%a), to_apply=%two, frontend_attributes={\
xla_cpu_small_call="true"}
  %begin = (f32[4]{0}, f32[4]{0}, u32[]) copy-start(%a)
  %end = f32[4]{0} copy-done(%begin)
  ROOT %out = (f32[4]{0}, f32[4]{0}) tuple(%call, %end)
}
"""


def test_kernels_are_counted_where_they_are_launched() -> None:
    assert kernels.count(PROGRAM) == 2 + 3 * 1 + (1 + 2) + 1 + 1 + 1


def test_a_loop_of_unknown_length_counts_once() -> None:
    unknown = PROGRAM.replace('"known_trip_count":{"n":"3"}', "")
    assert kernels.count(unknown) == kernels.count(PROGRAM) - 2


def test_a_trace_has_the_kernels_that_were_counted(tmp_path) -> None:
    @jax.jit
    def program(x: jax.Array) -> jax.Array:
        return jax.lax.fori_loop(0, 4, lambda _, x: jnp.tanh(x @ x), x + 1)

    x = jnp.ones((64, 64))
    compiled = program.lower(x).compile()
    compiled(x).block_until_ready()
    with jax.profiler.trace(str(tmp_path)):
        for _ in range(3):
            compiled(x).block_until_ready()
    events = kernels.read(tmp_path)
    # A product and a tanh in each of the four rounds, at least.
    assert len(events) == 3 * kernels.count(compiled.as_text()) >= 3 * 8
    found = kernels.summary(events, 3, 1.0)
    assert 0 < found["busy"] < 1
    assert sum(kernel["share"] for kernel in found["top"]) == pytest.approx(1)


def test_no_trace_has_no_kernels(tmp_path) -> None:
    assert kernels.read(tmp_path) == []
    assert kernels.summary([], 3, 1.0) == {}


def test_shares_and_times_are_those_of_a_step() -> None:
    """Of two steps, with 2 us idle and 1 us in which two kernels run at once."""
    events = [
        *(Event("conv", 0, 4000), Event("add", 4000, 5000)),
        *(Event("conv", 7000, 10_000), Event("add", 9000, 12_000)),
    ]
    found = kernels.summary(events, 2, 12e-6)
    assert found["launches_per_step"] == 2
    assert found["busy"] == pytest.approx(10 / 12)
    assert found["top"] == [
        {
            "name": name,
            "share": pytest.approx(microseconds / 11),
            "microseconds_per_step": pytest.approx(microseconds / 2),
            "launches_per_step": 1,
        }
        for name, microseconds in (("conv", 7), ("add", 4))
    ]


def test_what_contains_others_is_no_kernel() -> None:
    loop, first, second, after = (
        *(Event("loop", 0, 10), Event("dot", 0, 4)),
        *(Event("tanh", 5, 10), Event("copy", 10, 11)),
    )
    assert kernels.innermost([after, second, loop, first]) == [first, second, after]
