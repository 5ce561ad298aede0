"""Programs over all devices: what is placed on them, and the training step in its two forms."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bit_jax.data import order
from bit_jax.inference.programs import Examples
from bit_jax.models import resnet_v2
from bit_jax.runtime import parallel
from bit_jax.training import memory, optimizer, programs, steps


def test_each_process_takes_its_rows(monkeypatch):
  rows = np.arange(8)[:, None]
  assert parallel.local_rows(rows[:4]).ravel().tolist() == [0, 1, 2, 3]
  monkeypatch.setattr(jax, "process_index", lambda: 1)
  assert parallel.local_rows(rows).ravel().tolist() == [4, 5, 6, 7]


def test_replicated_state_is_not_the_host_s_own():
  """A step writes into what it is given."""
  # A multiple of 64 bytes is where the CPU's devices may use the host's own memory.
  space = np.zeros(2 * 1024 * 1024, np.float32)
  start = -space.ctypes.data % 64 // 4
  host = {"a": np.zeros(1024, np.float32), "b": space[start : start + 1024 * 1024]}
  assert host["b"].ctypes.data % 64 == 0
  add = jax.pmap(
    lambda t, x: jax.tree.map(lambda a: a + x, t),
    "devices",
    in_axes=(None, 0),
    out_axes=None,
    donate_argnums=0,
  )
  placed = parallel.replicate(host)
  assert len(placed["a"].sharding.device_set) == 4
  added = add(placed, np.ones(4, np.float32))
  assert placed["a"].is_deleted()
  np.testing.assert_array_equal(host["a"], 0)
  np.testing.assert_array_equal(host["b"], 0)
  np.testing.assert_array_equal(added["b"], 1)


class Small(nn.Module):
  """A network of the same form that compiles in no time."""

  num_classes: int = 10
  dtype: Any = jnp.float32
  platform: str = "cpu"

  @nn.compact
  def __call__(self, images):
    compute = resnet_v2.Compute(self.dtype, self.platform)
    x = resnet_v2.StdConv(32, 3, 2, compute, name="standardized_conv2d")(images)
    x = resnet_v2.GroupNormRelu(compute, name="group_norm")(x).mean((1, 2))
    return resnet_v2.Head(self.num_classes, name="head")(x), {}


def trained(num_devices, batch, mixup, size=None, **how):
  """Takes three steps at the rule's rate, whole or in micro-batches; returns losses and weights."""
  random = np.random.default_rng(0)
  task = memory.Task(Small(), 24, 16, (20, 20), **how)
  params = {
    "standardized_conv2d": {"kernel": random.normal(size=(3, 3, 3, 32)).astype(np.float32)},
    "group_norm": {"gamma": np.ones(32, np.float32), "beta": np.zeros(32, np.float32)},
    "head": {
      "conv2d": {"kernel": np.zeros((1, 1, 32, 10), np.float32), "bias": np.zeros(10, np.float32)}
    },
  }
  sgd = optimizer.sgd(0.9, how.get("momentum_dtype", "float32"))
  state = parallel.replicate(steps.create_state(params, sgd))
  if size is None:
    step = programs.train_function(task)
  else:
    step = programs.train_in_micro_batches(task, size)
  layout = order.device_layout(batch, num_devices, mixup)
  positions = parallel.send(layout.astype(np.int32))
  found = []
  for i in range(3):
    images = random.integers(0, 256, (batch, 20, 20, 3), dtype=np.uint8)
    labels = random.integers(0, 10, batch).astype(np.int32)
    state, part = step(
      state,
      parallel.send(Examples(images[layout], labels[layout])),
      positions,
      programs.StepArguments(
        key=jax.random.key(1),
        lam=np.float32(order.mixup_lambda(0, i, 0.5 * mixup)),
        learning_rate=np.float32(0.03),
        flip=np.bool_(True),
        random_crop=np.bool_(True),
      ),
    )
    found.append([float(v) for v in part.compute().values()])
  assert int(state.step) == 3
  return found, jax.device_get(state.params)


def assert_same(one, other):
  np.testing.assert_allclose(one[0], other[0], atol=1e-5)
  assert jax.tree.structure(one[1]) == jax.tree.structure(other[1])
  for a, b in zip(*map(jax.tree.leaves, (one[1], other[1])), strict=True):
    np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.parametrize(
  ("num_devices", "batch", "mixup", "sizes"),
  [(1, 12, True, (4,)), (4, 16, True, (2,)), (4, 12, False, (1,))],
)
def test_a_step_in_micro_batches_is_the_whole_one(monkeypatch, num_devices, batch, mixup, sizes):
  monkeypatch.setattr(jax, "local_devices", lambda: jax.devices()[:num_devices])
  whole = trained(num_devices, batch, mixup)
  assert whole[0][0] != whole[0][1] != whole[0][2]
  for size in sizes:
    assert_same(trained(num_devices, batch, mixup, size), whole)


def test_on_cpu_a_micro_batch_waits_for_the_one_before(monkeypatch):
  """Each is sent with all the memory that it takes: several on their way would not fit."""
  log = []
  monkeypatch.setattr(jax, "block_until_ready", lambda sums: log.append(("ready", sums)))
  functions = programs.MicroBatchFunctions(
    begin=lambda *_: ("variables", 0),
    take=lambda *_: ("examples", "positions"),
    accumulate=lambda _, sums, *__: (log.append(("sent", sums)), sums + 1)[1],
    finish=lambda _, sums, count, __: (sums, count),
  )
  parts = []
  monkeypatch.setattr(programs, "micro_batch_functions", lambda _: functions)
  task = memory.Task(Small(), 24, 16, (20, 20))
  step = programs.train_in_micro_batches(task, 2, lambda *part: parts.append(part))
  state = steps.TrainState(0, None, None)
  assert step(state, None, np.zeros((4, 6)), None) == (3, 3)
  assert log[0] == ("ready", state)  # the step before is through
  assert log[1:] == [(what, i) for i in range(3) for what in ("ready", "sent")]
  assert parts == [(1, 3), (2, 3)]


def test_momentum_in_bfloat16_is_a_little_less_exact():
  exact, rounded = (trained(4, 16, True, 2, momentum_dtype=d) for d in ("float32", "bfloat16"))
  kernel, expected = (params["head"]["conv2d"]["kernel"] for _, params in (rounded, exact))
  difference = np.linalg.norm(kernel - expected) / np.linalg.norm(expected)
  assert 1e-6 < difference < 4e-3  # of a number, bfloat16 keeps eight bits
