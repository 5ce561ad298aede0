"""The choice of micro-batch: for described devices, by arithmetic and by the compiler."""

import dataclasses
import functools
import math
import types

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bit_jax.data import order
from bit_jax.inference import footprint
from bit_jax.models import architectures, resnet_v2
from bit_jax.runtime import cache, devices, errors
from bit_jax.training import memory, planning

TINY = architectures.Architecture("tiny", (1, 1, 0, 0), 0.5)
TASK = memory.Task(resnet_v2.ResNetV2(TINY, 10), 40, 32, (36, 36))
ON_GPU = dataclasses.replace(TASK, model=TASK.model.clone(platform="gpu"))
CPU = devices.Description("cpu", "cpu", None, 4, 4)
H100 = devices.Description("gpu", "NVIDIA H100 80GB HBM3", 84_942_979_072, 8, 8)
V5E = devices.Description("tpu", "TPU v5 lite", 16 * 2**30, 4, 4)
PASSES = planning.Program.PASSES
WAITING = 311_040  # bytes of five batches of 16 images of 36 x 36


@pytest.fixture
def compiled(monkeypatch):
  """A compiler for which programs need 1 MB and 0.4 MB an image; returns what it was asked for."""
  sizes = []

  def compiler(task, program, images, num_devices):
    assert (num_devices, program) == (4, "passes")  # on CPU two whole steps would be in memory
    sizes.append(images)
    return 1e6 + 4e5 * images

  monkeypatch.setattr(planning, "_compile", compiler)
  return sizes


def plan(budget, batch=16, mixup=True, microbatch="auto", remat="auto", task=TASK, description=CPU):
  return planning.plan(
    task.with_remat() if remat is True else task,
    batch,
    description,
    types.SimpleNamespace(mixup_alpha=0.1 * mixup, microbatch=microbatch, remat=remat),
    budget,
  )


@pytest.mark.parametrize(
  ("name", "size", "batch", "hardware", "fits"),
  [
    ("R50x1", 128, 512, H100, True),
    ("R50x1", 480, 64, H100, True),  # 512 images on 8 of them
    ("R50x1", 128, 128, V5E, True),
    ("R50x1", 480, 128, V5E, False),
    ("R152x4", 480, 64, H100, False),
  ],
)
def test_whole_steps_on_devices_of_published_memory(name, size, batch, hardware, fits, monkeypatch):
  """Nothing asks JAX for the devices of this machine."""
  for ask in ("default_backend", "devices", "local_devices", "device_count", "local_device_count"):
    monkeypatch.setattr(jax, ask, lambda *_: pytest.fail("JAX was asked"))
  compute = devices.compute_dtype("auto", hardware)
  model = resnet_v2.create(name, 1000, compute, hardware.platform)
  resize = size * 16 // 15
  task = memory.Task(model, resize, size, (resize, resize))
  budget = footprint.budget(hardware, task.state_bytes) - task.state_bytes
  monkeypatch.setattr(planning, "_compile", lambda _, __, images, ___: 1.2e9 * images)
  config = types.SimpleNamespace(mixup_alpha=0.1, microbatch="auto", remat="auto")
  chosen = planning.plan(task, batch, hardware, config, budget)
  assert chosen.at_once == fits
  assert (chosen.microbatch == batch) == fits


@pytest.mark.slow
def test_the_chosen_program_fits_and_the_next_larger_does_not():
  needs = {m: planning.compiled_bytes(TASK, PASSES, m, CPU) for m in (8, 16)}
  budget = sum(needs.values()) / 2 + WAITING
  chosen = plan(budget)
  assert (chosen.microbatch, chosen.at_once) == (8, False)
  assert needs[8] <= budget - WAITING < needs[16]


@pytest.mark.usefixtures("compiled")
def test_the_plan_states_its_reason(capsys):
  assert plan(1e9).reason.startswith("All 16 images per device fit at once: at most ")
  assert capsys.readouterr().out == ""
  whole = plan(7.4e6 + WAITING)
  assert whole.reason == "All 16 images fit at once: 0.0074 GB of 0.0074 GB available."
  assert not whole.at_once
  assert "Searching for the largest micro-batch" in capsys.readouterr().out
  split = plan(4.19e6 + WAITING)
  assert (split.microbatch, split.batch, split.remat) == (4, 16, False)
  assert split.reason == (  # the bound, in the proportion of 8 images
    "Micro-batches of 4 images: 16 would need about 0.0074 GB of 0.00419 GB available."
  )
  assert plan(1.5e6 + WAITING, mixup=False).microbatch == 1
  nothing = plan(5e5)
  assert nothing.microbatch == 2
  assert "warning: even 2 would need about 0.0018 GB" in nothing.reason


def test_the_analysis_is_cached_for_the_same_task(compiled):
  assert plan(4.19e6 + WAITING).microbatch == 4
  assert plan(4.19e6 + WAITING).microbatch == 4
  assert compiled == [2, 4, 8]  # of the bound, of what 2 images need, and the next larger one
  assert plan(7.4e6 + WAITING).microbatch == 16
  assert compiled == [2, 4, 8, 16]
  other = dataclasses.replace(TASK, crop=40)
  assert (plan(4.19e6 + WAITING, task=other).microbatch, compiled[4:]) == (4, [2, 4, 8])


def test_what_arithmetic_rules_out_is_not_compiled(compiled):
  """32 images must keep 6.5 MB, and so do not fit in 6 MB."""
  assert plan(6e6 + 2 * WAITING, batch=32).microbatch == 8
  assert compiled == [4, 8, 16]


@pytest.mark.parametrize("platform", ["cpu", "gpu", "tpu"])
@given(data=st.data())
def test_the_largest_that_fits_is_found_and_none_that_does_not(platform, data):
  """For any memory that rises with the images, from the lower bound on; else one that fits."""
  task = dataclasses.replace(TASK, model=TASK.model.clone(platform=platform))
  batch, mixup = data.draw(st.sampled_from([1, 2, 7, 16, 60, 512])), data.draw(st.booleans())
  sizes, least = order.micro_batch_sizes(batch, mixup), memory.least(task)
  factors = data.draw(st.lists(st.floats(0.3, 9), min_size=len(sizes), max_size=len(sizes)))
  needs = [factor * least.of(m) for factor, m in zip(factors, sizes, strict=True)]
  needs[len(sizes) - data.draw(st.integers(0, len(sizes))) :] = []  # the compiler refuses others
  needs += [math.inf] * (len(sizes) - len(needs))
  if rising := data.draw(st.booleans()):
    needs = np.maximum.accumulate(np.maximum(needs, [least.of(m) for m in sizes])).tolist()
  needed = dict(zip(sizes, needs, strict=True))
  budget = data.draw(st.floats(0, 2 * memory.whole_step_bytes(task, batch)))
  waiting = memory.waiting_bytes(task, batch)

  def compiler(_, program, images, __):
    if program == "end":
      return task.state_bytes  # much less than the passes
    whole = program == "step"
    assert whole == (images == batch and platform != "cpu")
    return needed[images] + whole * (task.state_bytes + waiting / 2)

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(planning, "_compile", compiler)
    patch.setattr(cache, "remember", lambda *_: None)
    chosen = plan(budget + waiting, batch, mixup, remat=False, task=task)
  if chosen.reason.startswith(f"All {batch} images per device"):  # by the bound
    assert memory.whole_step_bytes(task, batch) <= budget + waiting
    return
  fitting = [m for m in sizes if needed[m] <= budget]
  if rising:
    assert chosen.microbatch == max(fitting, default=sizes[0])
  assert chosen.microbatch in fitting or chosen.microbatch == sizes[0]
  assert ("warning" in chosen.reason) == (needed[chosen.microbatch] > budget)
  assert chosen.at_once == (chosen.microbatch == batch and platform != "cpu")


def test_a_larger_program_that_needs_more_than_others_say_is_not_used(compiled, monkeypatch):
  """From 32 images up each needs twice as much, as happens on CPU."""

  def compiler(_, __, images, ___):
    compiled.append(images)
    return 1e6 + images * (6e5 if images >= 32 else 3e5)

  monkeypatch.setattr(planning, "_compile", compiler)
  split = plan(20.5e6 + 4 * WAITING, batch=64)
  assert (split.microbatch, split.at_once) == (32, False)
  assert compiled == [16, 32, 64]
  assert "64 would need about 0.0394 GB of 0.0205 GB" in split.reason


def test_a_damaged_or_missing_cache_costs_time_only(compiled, monkeypatch, tmp_path):
  monkeypatch.setenv("BIT_JAX_CACHE", str(tmp_path / "cache"))
  plan(4.19e6 + WAITING)
  records = list((tmp_path / "cache/memory").glob("*.json"))
  assert len(records) == 3
  for record in records:
    record.write_text("{")
  assert plan(4.19e6 + WAITING).microbatch == 4
  (tmp_path / "file").write_text("")
  monkeypatch.setenv("BIT_JAX_CACHE", str(tmp_path / "file"))
  assert plan(4.19e6 + WAITING).microbatch == 4
  assert compiled == 3 * [2, 4, 8]


def test_without_a_home_folder_the_program_is_compiled_every_time(compiled, no_home):
  assert [planning.compiled_bytes(TASK, PASSES, 4, CPU) for _ in range(2)] == [2.6e6, 2.6e6]
  assert compiled == [4, 4]


def test_activations_are_recomputed_only_if_nothing_fits_otherwise(monkeypatch):
  def compiler(task, program, images, _):
    state = (program != "passes") * task.state_bytes
    if program == "end":
      return state
    if task.model.remat:
      return 5e5 + 1e5 * images + state
    return 1e6 + 4e5 * images + state

  monkeypatch.setattr(planning, "_compile", compiler)
  waiting = memory.waiting_bytes(ON_GPU, 16)
  assert not plan(1.8e6 + waiting, task=ON_GPU).remat
  recomputed = plan(1.5e6 + waiting, task=ON_GPU)
  assert (recomputed.remat, recomputed.microbatch) == (True, 8)
  assert "recomputes activations" in recomputed.reason
  assert not plan(1.5e6 + waiting, task=ON_GPU, remat=False).remat
  assert plan(2.6e6 + waiting, task=ON_GPU, remat=True).remat
  assert not plan(1.5e6 + WAITING).remat  # XLA for CPU recomputes nothing


def test_a_compiler_that_knows_the_memory_refuses_what_does_not_fit(monkeypatch):
  """As TPU's; other errors stay errors."""

  def refuse():
    raise jax.errors.JaxRuntimeError(message)

  lowered = types.SimpleNamespace(compile=refuse)
  monkeypatch.setattr(planning, "lower", lambda *_: lowered)
  message = "RESOURCE_EXHAUSTED: TPU backend error. Ran out of memory on HBM."
  nothing = plan(5e6, mixup=False, remat=False)
  assert nothing.microbatch == 1
  assert (
    "warning: even 1 would need more than the 0.00469 GB available, by the compiler"
    in nothing.reason
  )
  message = "INTERNAL: the compiler broke"
  with pytest.raises(jax.errors.JaxRuntimeError, match="broke"):
    plan(5e6, task=dataclasses.replace(TASK, crop=40))


@pytest.mark.parametrize(
  ("microbatch", "mixup", "size"), [(4, True, 4), (1, False, 1), (16, True, 16), (512, True, 16)]
)
def test_a_micro_batch_that_is_set_is_used(microbatch, mixup, size):
  planned = plan(0, mixup=mixup, microbatch=microbatch)
  assert (planned.microbatch, planned.at_once) == (size, size == 16)
  assert f"{size} of 16 images" in planned.reason
  assert f"microbatch={microbatch}" in planned.reason


@pytest.mark.parametrize(
  ("batch", "mixup", "microbatch", "nearest"),
  [(16, True, 5, "4 or 8"), (16, True, 1, "2"), (9, True, 3, "9"), (12, False, 5, "4 or 6")],
)
def test_a_micro_batch_that_does_not_divide_the_batch(batch, mixup, microbatch, nearest):
  config = types.SimpleNamespace(microbatch=microbatch, mixup_alpha=0.1 * mixup)
  with pytest.raises(errors.UserError, match=f"microbatch={microbatch}.* {nearest}[.]"):
    planning.require_microbatch(config, batch)
  with pytest.raises(errors.UserError, match=f"microbatch={microbatch}.* {nearest}[.]"):
    plan(0, batch=batch, mixup=mixup, microbatch=microbatch)


def test_processes_agree_on_a_plan_that_fits_on_all(monkeypatch):
  """This one could do 8 images without rematerialisation, the other 4 with it."""
  ours = planning.Plan(8, 16, False, "ours", at_once=False)
  assert planning.agreed(ours, 64) == (ours, 64)  # a single process
  monkeypatch.setattr(jax, "process_count", lambda: 2)
  other = np.array([4, False, False, 32])
  gather = "process_allgather"
  monkeypatch.setattr(planning.multihost_utils, gather, lambda mine: np.stack([mine, other]))
  plan, eval_batch = planning.agreed(ours, 64)
  assert (plan.microbatch, plan.batch, plan.remat, plan.at_once) == (4, 16, True, False)
  assert "4 images" in plan.reason
  assert eval_batch == 32


def test_several_processes_plan_by_arithmetic(monkeypatch, capsys):
  monkeypatch.setattr(planning, "_compile", lambda *_: pytest.fail("compiled"))
  need, two_hosts = memory.bound(TASK), dataclasses.replace(CPU, count=8)
  split = plan(need.of(8) + WAITING, description=two_hosts)
  assert (split.microbatch, split.at_once) == (8, False)
  assert "estimated" in plan(0, description=two_hosts).reason
  assert capsys.readouterr().out == ""


def test_the_end_of_a_step_on_several_devices_counts(monkeypatch):
  """Large networks on small devices: it takes more than the passes over small micro-batches."""
  asked = []

  def compiler(task, program, images, _):
    asked.append(program)
    return {"passes": 1e6 + 4e5 * images, "end": task.state_bytes + 3e6}[program]

  monkeypatch.setattr(planning, "_compile", compiler)
  monkeypatch.setattr(memory, "end_bytes", lambda _: 3.5e6)
  waiting = memory.waiting_bytes(ON_GPU, 512)
  choose = functools.partial(plan, batch=512, task=ON_GPU, remat=False)
  nothing = choose(2.9e6 + waiting)  # 4 without the end
  assert nothing.microbatch == 2
  assert "even 2 would need about 0.003 GB of 0.0029 GB" in nothing.reason
  assert choose(3.1e6 + waiting).microbatch == 4
  assert "end" in asked
  one = dataclasses.replace(CPU, count=1, local_count=1)
  assert choose(2.9e6 + waiting, description=one).microbatch == 4
  asked.clear()
  search = planning._Search(ON_GPU, 512, CPU, compiler_of(dataclasses.replace(CPU, kind="other")))
  assert search.used(8) == 4.2e6  # more than any end
  assert asked == ["passes"]


def compiler_of(description):
  return functools.partial(planning.compiled_bytes, description=description)


def test_a_refusal_is_kept_where_the_compiler_knows_the_memory(monkeypatch):
  asked = []
  monkeypatch.setattr(planning, "_compile", lambda *_: asked.append(1) or math.inf)
  for platform, times in (("tpu", 1), ("gpu", 2)):
    task = dataclasses.replace(TASK, model=TASK.model.clone(platform=platform))
    asked.clear()
    for _ in range(2):
      assert planning.compiled_bytes(task, PASSES, 4, CPU) == math.inf
    assert len(asked) == times


def test_a_batch_that_cannot_be_split_and_does_not_fit(monkeypatch):
  monkeypatch.setattr(planning, "_compile", lambda *_: 2e7)
  budget = 4e6 + memory.waiting_bytes(TASK, 2)
  assert plan(budget, batch=2).reason == (
    "All 2 images at once, which can't be split. warning: even 2 would need about 0.02 GB of 0.004 "
    "GB available, by the compiler's analysis; the system may kill this process silently."
  )


@pytest.mark.parametrize("platform", ["cpu", "gpu"])
def test_the_advice_is_the_setting_that_costs_least_and_is_still_left(platform):
  config = types.SimpleNamespace(microbatch=8, mixup_alpha=0.1, resize=160, crop=128)
  vars(config).update(momentum_dtype="float32", resident_share=0.5)
  given = []
  for microbatch, remat, changes in (
    (8, False, {}),
    (2, False, {}),
    (2, True, {}),
    (2, True, {"momentum_dtype": "bfloat16"}),
    (2, True, {"resident_share": 0}),
  ):
    vars(config).update(changes)
    plan = planning.Plan(microbatch, 8, remat, "", at_once=False)
    given.append(planning.advice(plan, config, platform))
  assert given[0].startswith("--config.microbatch=4 (now 8 images per device), or 'auto'")
  second = "--config.remat=True" if platform == "gpu" else "--config.momentum_dtype=bfloat16"
  assert given[1].startswith(second)
  assert given[2].startswith("--config.momentum_dtype=bfloat16")
  assert given[3].startswith("--config.resident_share=0 (now 0.5)")
  assert "--config.crop (now 160 and 128)" in given[4]
