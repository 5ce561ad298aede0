"""The count of a compiled program's memory traffic, on HLO whose bytes are known."""

import jax
import jax.numpy as jnp
import pytest

from experiments.accelerators import traffic

HLO = """HloModule jit_f, is_scheduled=true

%fused (p: bf16[4,8]) -> f32[4,8] {
  %p = bf16[4,8]{1,0} parameter(0)
  ROOT %c = f32[4,8]{1,0} convert(%p)
}

ENTRY %main.1 (x.1: bf16[4,8], i.2: s32[]) -> (f32[4], s32[]) {
  %x.1 = bf16[4,8]{1,0} parameter(0), metadata={op_name="x"}
  %i.2 = s32[] parameter(1)
  %zero = f32[] constant(0)
  %loop_convert_fusion.3 = f32[4,8]{1,0:T(8,128)} fusion(%x.1), metadata={op_name="jit(f)/sin(x)"}
  %conv.1 = (f32[4,8]{1,0}, u8[16]{0}) custom-call(%loop_convert_fusion.3, /*index=1*/%x.1)
  %get-tuple-element.5 = f32[4,8]{1,0} get-tuple-element(%conv.1), index=0
  %flat.1 = f32[32]{0} bitcast(%get-tuple-element.5)
  %loop_reduce_fusion = f32[4]{0} fusion(%flat.1, %flat.1, %zero), kind=kInput, calls=%fused.2
  ROOT %tuple = (f32[4]{0}, s32[]) tuple(%loop_reduce_fusion, %i.2)
}
"""


def test_bytes_of_operands_and_results_are_counted():
  found = list(traffic.kernels(HLO))
  assert [(kernel.name, kernel.opcode, kernel.bytes) for kernel in found] == [
    ("%loop_convert_fusion.3", "fusion", 4 * 8 * (2 + 4)),
    ("%conv.1", "custom-call", 4 * 8 * (4 + 4 + 2) + 16),
    ("%loop_reduce_fusion", "fusion", 2 * 32 * 4 + 4 + 4 * 4),
  ]
  kinds = traffic.by_kind(found)
  assert kinds == [
    ("conv", 1, 336),
    ("loop_reduce_fusion", 1, 276),
    ("loop_convert_fusion", 1, 192),
  ]


@pytest.mark.parametrize(
  ("shape", "expected"),
  [
    ("f32[]", 4),
    ("pred[3,5]{1,0}", 15),
    ("bf16[2,<=3]{1,0:T(8,128)(2,1)}", 12),
    ("f8e4m3fn[7]", 7),
    ("s4[8]", 4),
    ("(u32[2]{0}, token[], f64[3])", 32),
  ],
)
def test_sizes_of_shapes(shape, expected):
  assert traffic.size_of(shape) == expected


def test_a_program_compiled_here_is_counted():
  compiled = jax.jit(lambda x: jnp.sin(x).sum(0)).lower(jnp.ones((64, 128))).compile()
  total = sum(kernel.bytes for kernel in traffic.kernels(compiled.as_text()))
  assert total >= 4 * (64 * 128 + 128)  # its argument and its result
