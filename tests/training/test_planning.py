"""How a step is cut: the compiler against the arithmetic, and what is decided from both."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bit_jax.models import architectures, resnet_v2
from bit_jax.runtime import errors, free_memory
from bit_jax.training import memory, planning

TINY = architectures.Architecture("tiny", (1, 1, 0, 0), 0.5)
TASK = memory.Task(resnet_v2.ResNetV2(TINY, 10), 40, 32, (36, 36), platform="cpu")
NEED = memory.Need(100, 10)


@pytest.fixture
def analysed(monkeypatch):
  """The compiler's analysis is `NEED`; returns the sizes that it was asked about."""
  asked = []
  monkeypatch.setattr(memory, "bound", lambda _: memory.Need(0, 1e6))
  monkeypatch.setattr(memory, "waiting_bytes", lambda *_: 0)
  monkeypatch.setattr(planning, "_analyse", lambda _, m: (asked.append(m), NEED.of(m))[1])
  return asked


def plan(budget, share=16, mixup=True, microbatch="auto", remat="auto", task=TASK):
  return planning.plan(
    task.with_remat() if remat is True else task,
    share,
    mixup=mixup,
    microbatch=microbatch,
    may_remat=remat == "auto",
    budget=budget,
  )


@pytest.mark.slow
def test_the_compiler_s_numbers_are_below_the_bound():
  t = TASK
  need, most = planning.measured(t), memory.bound(t)
  assert need.of(8) <= most.of(8)
  whole = planning.compiled_bytes(t, 128)  # twice what the line says
  assert need.of(128) <= 1.1 * whole <= 1.1 * most.of(128)
  assert most.of(128) < 3 * whole


@pytest.mark.slow
def test_the_bound_holds_in_bfloat16_on_cpu_too():
  t = dataclasses.replace(TASK, model=TASK.model.clone(dtype=jnp.bfloat16))
  assert planning.compiled_bytes(t, 16) <= memory.bound(t).of(16)


def test_without_a_home_folder_the_compiler_is_asked_every_time(analysed, no_home):
  assert [planning.compiled_bytes(TASK, 4) for _ in range(2)] == [140, 140]
  assert analysed == [4, 4]


@pytest.mark.usefixtures("analysed")
def test_the_plan_says_what_it_chose():
  assert plan(260).reason == "All 16 images fit at once: 2.6e-07 GB of the 2.6e-07 GB available."
  split = plan(179)
  assert (split.microbatch, split.share, split.remat) == (4, 16, False)
  assert split.reason == (
    "Micro-batches of 4 images: 16 would need 2.6e-07 GB of the 1.79e-07 GB available."
  )
  assert plan(115, mixup=False).microbatch == 1
  nothing = plan(50)
  assert nothing.microbatch == 2
  assert "warning: even 2 would need 1.2e-07 GB" in nothing.reason


@pytest.mark.usefixtures("analysed")
def test_it_is_said_before_the_compiler_is_asked(capsys):
  plan(179)
  assert capsys.readouterr().out.startswith("Looking for the micro-batch that fits: ")
  plan(1e9)
  assert capsys.readouterr().out == ""


@pytest.mark.usefixtures("analysed")
def test_room_is_left_for_whole_batches(monkeypatch):
  assert plan(260).microbatch == 16
  monkeypatch.setattr(memory, "waiting_bytes", lambda _, share: 5 * share)
  assert plan(260).microbatch == 8
  assert plan(339).microbatch == 8
  assert plan(340).microbatch == 16


def test_what_surely_fits_is_not_analysed(analysed, monkeypatch):
  assert plan(3.2e7).microbatch == 16
  assert analysed == []
  monkeypatch.setattr(memory, "bound", lambda _: memory.Need(0, 1))
  assert plan(32).reason == (  # two steps at a time on CPU
    "All 16 images of a device's batch fit at once: at most 3.2e-08 GB of 3.2e-08 GB available."
  )
  assert plan(31).in_parts


def test_an_analysis_is_remembered(analysed):
  assert plan(179).microbatch == 4
  assert plan(179).microbatch == 4
  assert analysed == [4, 8]  # the two small ones, of which one is what runs
  assert plan(260).microbatch == 16
  assert analysed == [4, 8, 16]
  other = dataclasses.replace(TASK, crop=40)
  other = planning.plan(other, 16, mixup=True, microbatch="auto", may_remat=True, budget=179)
  assert (other.microbatch, analysed) == (4, [4, 8, 16, 4, 8])


def test_a_larger_program_that_takes_more_than_the_line_says_is_not_run(analysed, monkeypatch):
  """From 32 images up each takes twice as much, as happens on CPU."""

  def analyse(_, images):
    analysed.append(images)
    return 100 + images * (20 if images >= 32 else 10)

  monkeypatch.setattr(planning, "_analyse", analyse)
  split = plan(800, share=64)
  assert (split.microbatch, split.in_parts, split.at_once) == (32, True, False)
  assert analysed == [4, 8, 64, 32]
  assert "64 would need 1.38e-06 GB of the 8e-07 GB" in split.reason


def test_a_cache_that_is_damaged_or_cannot_be_written_costs_time_only(
  analysed, monkeypatch, tmp_path
):
  monkeypatch.setenv("BIT_JAX_CACHE", str(tmp_path / "cache"))
  plan(179)
  records = list((tmp_path / "cache/memory").glob("*.json"))
  assert len(records) == 2
  for record in records:
    record.write_text("{")
  assert plan(179).microbatch == 4
  (tmp_path / "file").write_text("")
  monkeypatch.setenv("BIT_JAX_CACHE", str(tmp_path / "file"))
  assert plan(179).microbatch == 4
  assert analysed == [4, 8, 4, 8, 4, 8, 4]


def test_units_are_computed_again_where_nothing_fits_without(monkeypatch):
  on_gpu = functools.partial(plan, task=dataclasses.replace(TASK, platform="gpu"))
  monkeypatch.setattr(memory, "bound", lambda _: memory.Need(0, 1e6))
  monkeypatch.setattr(memory, "waiting_bytes", lambda *_: 0)
  needs = {False: NEED, True: memory.Need(50, 5)}
  monkeypatch.setattr(planning, "_analyse", lambda t, m: needs[t.model.remat].of(m))
  assert not on_gpu(120).remat
  assert (on_gpu(100).remat, on_gpu(100).microbatch) == (True, 8)
  assert "computed again in the backward pass" in on_gpu(100).reason
  assert not on_gpu(100, remat=False).remat
  assert on_gpu(260, remat=True).remat


@pytest.mark.parametrize(
  ("microbatch", "mixup", "size"), [(4, True, 4), (1, False, 1), (16, True, 16), (512, True, 16)]
)
def test_a_size_that_was_set_is_taken(microbatch, mixup, size):
  planned = plan(0, mixup=mixup, microbatch=microbatch)
  assert planned.microbatch == size
  whole = f"All 16 images of a device's batch at once, as set (microbatch={microbatch})."
  assert (planned.reason == whole) == (size == 16)


@pytest.mark.parametrize(
  ("share", "mixup", "microbatch", "said"),
  [
    (16, True, 5, "microbatch=5 .* the 16 images .*: the nearest that do: 4 or 8"),
    (16, True, 1, "into even parts, as MixUp needs: the nearest that do: 2"),
    (9, True, 3, "the nearest that do: 9"),
    (12, False, 5, "each device: the nearest that do: 4 or 6"),
  ],
)
def test_a_size_that_does_not_divide(share, mixup, microbatch, said):
  with pytest.raises(errors.UserError, match=said):
    plan(0, share=share, mixup=mixup, microbatch=microbatch)


def test_an_evaluation_takes_what_surely_fits(monkeypatch):
  monkeypatch.setattr(memory, "evaluation_bound", lambda _: NEED)
  assert planning.evaluation_batch(TASK, 256, 10_000, 1e6) == 256
  on_gpu = dataclasses.replace(TASK, platform="gpu")
  assert planning.evaluation_batch(on_gpu, 256, 10_000, 250) == 15 * jax.device_count()
  # On CPU two batches at a time.
  assert planning.evaluation_batch(TASK, 256, 10_000, 250) == 7 * jax.device_count()
  assert planning.evaluation_batch(TASK, 256, 10_000, 0) == jax.device_count()


@pytest.mark.parametrize(
  ("num_images", "batch"), [(1, 4), (4, 4), (5, 8), (16, 16), (17, 32), (200, 256), (300, 256)]
)
def test_a_small_set_is_evaluated_in_a_batch_that_holds_it(num_images, batch, monkeypatch):
  monkeypatch.setattr(memory, "evaluation_bound", lambda _: NEED)
  assert jax.device_count() == 4
  assert planning.evaluation_batch(TASK, 256, num_images, 1e6) == batch


def test_processes_agree_on_what_the_least_of_them_can_do(monkeypatch):
  """This one could do 8 images without rematerialisation, the other 4 with it."""
  ours = planning.Plan(8, 16, False, "ours", in_parts=False)
  assert planning.agreed(ours, 64) == (ours, 64)  # nobody to ask
  monkeypatch.setattr(jax, "process_count", lambda: 2)
  other = np.array([4, False, False, 32])
  gather = "process_allgather"
  monkeypatch.setattr(planning.multihost_utils, gather, lambda mine: np.stack([mine, other]))
  plan, eval_batch = planning.agreed(ours, 64)
  assert (plan.microbatch, plan.share, plan.remat, plan.in_parts) == (4, 16, True, True)
  assert plan.reason == "Micro-batches of 4 images, which is what all processes can do."
  assert eval_batch == 32


def test_what_is_free_on_an_accelerator(monkeypatch):
  class Device:
    def __init__(self, in_use):
      self.in_use = in_use

    def memory_stats(self):
      return {"bytes_limit": 1000, "bytes_in_use": self.in_use}

  monkeypatch.setattr(jax, "local_devices", lambda: [Device(100), Device(400), Device(300)])
  assert planning.budget(TASK) == pytest.approx(0.9 * 600)  # of the one with the least left


def test_devices_of_the_cpu_share_what_the_host_has_left(monkeypatch):
  t = TASK
  monkeypatch.setattr(free_memory, "available", lambda: t.state_bytes + 1000)
  assert planning.budget(t) == pytest.approx(0.8 * 1000 / 4)
  monkeypatch.setattr(free_memory, "available", lambda: 10)
  assert planning.budget(t) == 0
