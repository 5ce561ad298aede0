"""What a step takes: arithmetic against the compiler, and what is decided from it."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bit_jax import architectures, errors, memory, models, optimizer, steps

TINY = architectures.Architecture("tiny", (1, 1, 0, 0), 0.5)
NEED = memory.Need(100, 10)


def task(architecture=TINY, dtype=jnp.float32, crop=32, remat=False, momentum_dtype="float32"):
  model = models.ResNetV2(architecture, 10, jnp.dtype(dtype), remat)
  return memory.Task(model, crop + 8, crop, (36, 36), momentum_dtype)


@pytest.fixture
def analysed(monkeypatch):
  """The compiler's analysis is `NEED`; returns the sizes that it was asked about."""
  asked = []
  monkeypatch.setattr(memory, "bound", lambda _: memory.Need(0, 1e6))
  monkeypatch.setattr(memory, "_analyse", lambda _, m: (asked.append(m), NEED.of(m))[1])
  return asked


def plan(budget, share=16, mixup=True, microbatch="auto", remat="auto"):
  return memory.plan(task(), share, mixup=mixup, microbatch=microbatch, remat=remat, budget=budget)


def test_activations_by_hand():
  """32 pixels: 16 x 16 leave the stem, 8 x 8 the pool and block 1, 4 x 4 block 2."""
  size = memory.count(TINY, 32)
  assert size.stem == 256 * 32
  first = (64 * (32 + 32 + 32), 64 * (32 + 32 + 128 + 128))
  second = (64 * (128 + 64) + 16 * 64, 64 * 64 + 16 * (64 + 256 + 256))
  assert size.normed == first[0] + second[0] + 16 * 256  # the last norm
  assert size.convolved == first[1] + second[1]
  assert size.entering == 64 * 32 + 64 * 128
  assert size.largest_unit == max(sum(first), sum(second))


@pytest.mark.parametrize("momentum_dtype", ["float32", "bfloat16"])
def test_the_state_is_what_was_counted(momentum_dtype):
  t = task(momentum_dtype=momentum_dtype)
  shapes = jax.eval_shape(t.model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
  params = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes["params"])
  state = steps.create_state(params, optimizer.sgd(0.9, momentum_dtype))
  held = sum(x.nbytes for x in jax.tree.leaves(state))
  assert t.state_bytes == pytest.approx(held, rel=0.02)


@pytest.mark.slow
def test_the_compiler_s_numbers_are_below_the_bound():
  t = task()
  need, most = memory.measured(t), memory.bound(t)
  assert [need.of(m) for m in (4, 8)] == [memory.compiled_bytes(t, m) for m in (4, 8)]
  assert need.of(8) <= most.of(8)
  whole = memory.compiled_bytes(t, 128)  # twice what the line says
  assert need.of(128) <= 1.1 * whole <= 1.1 * most.of(128)
  assert most.of(128) < 3 * whole


@pytest.mark.slow
def test_the_bound_holds_in_bfloat16_on_cpu_too():
  t = task(dtype=jnp.bfloat16)
  assert memory.compiled_bytes(t, 16) <= memory.bound(t).of(16)


def test_rematerialisation_keeps_less():
  keeps = dataclasses.replace(task(architectures.find("R152x4"), jnp.bfloat16, 480), platform="gpu")
  keeps, again = memory.bound(keeps), memory.bound(keeps.with_remat())
  assert again.per_image < 0.7 * keeps.per_image
  assert again.fixed == keeps.fixed


@pytest.mark.parametrize(
  ("budget", "size"), [(260, 16), (259, 8), (180, 8), (179, 4), (120, 2), (119, None), (0, None)]
)
def test_the_largest_that_fits(budget, size):
  assert memory.largest(NEED, [2, 4, 8, 16], budget) == size


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


def test_what_surely_fits_is_not_analysed(analysed, monkeypatch):
  assert plan(3.2e7).microbatch == 16
  assert analysed == []
  monkeypatch.setattr(memory, "bound", lambda _: memory.Need(0, 1))
  assert plan(32).reason == (  # two steps at a time on CPU
    "All 16 images of a device's batch fit at once: at most 3.2e-08 GB of 3.2e-08 GB available."
  )
  assert plan(31).compiled


def test_an_analysis_is_remembered(analysed):
  assert plan(179).microbatch == 4
  assert plan(179).microbatch == 4
  assert analysed == [4, 8]  # the two small ones, of which one is what runs
  assert plan(260).microbatch == 16
  assert analysed == [4, 8, 16]
  other = memory.plan(task(crop=40), 16, mixup=True, microbatch="auto", remat="auto", budget=179)
  assert (other.microbatch, analysed) == (4, [4, 8, 16, 4, 8])


def test_a_larger_program_that_takes_more_than_the_line_says_is_not_run(analysed, monkeypatch):
  """From 32 images up each takes twice as much, as happens on CPU."""

  def analyse(_, images):
    analysed.append(images)
    return 100 + images * (20 if images >= 32 else 10)

  monkeypatch.setattr(memory, "_analyse", analyse)
  split = plan(800, share=64)
  assert (split.microbatch, split.compiled, split.at_once) == (32, True, False)
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
  monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
  monkeypatch.setattr(memory, "bound", lambda _: memory.Need(0, 1e6))
  needs = {False: NEED, True: memory.Need(50, 5)}
  monkeypatch.setattr(memory, "_analyse", lambda t, m: needs[t.model.remat].of(m))
  assert not plan(120).remat
  assert (plan(100).remat, plan(100).microbatch) == (True, 8)
  assert "computed again in the backward pass" in plan(100).reason
  assert not plan(100, remat=False).remat
  assert plan(260, remat=True).remat


@pytest.mark.parametrize(
  ("microbatch", "mixup", "size"), [(4, True, 4), (1, False, 1), (16, True, 16), (512, True, 16)]
)
def test_a_size_that_was_set_is_taken(microbatch, mixup, size):
  assert plan(0, mixup=mixup, microbatch=microbatch).microbatch == size


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
  assert memory.evaluation_batch(task(), 256, 1e6) == 256
  assert memory.evaluation_batch(task(), 256, 250) == 15 * jax.device_count()
  assert memory.evaluation_batch(task(), 256, 0) == jax.device_count()


def test_what_is_free_on_an_accelerator(monkeypatch):
  class Device:
    def memory_stats(self):
      return {"bytes_limit": 1000, "bytes_in_use": 400}

  monkeypatch.setattr(jax, "local_devices", lambda: [Device()])
  assert memory.budget(task()) == pytest.approx(0.9 * 600)


def test_devices_of_the_cpu_share_what_the_host_has_left(monkeypatch):
  t = task()
  monkeypatch.setattr(memory.free_memory, "available", lambda: t.state_bytes + 1000)
  assert memory.budget(t) == pytest.approx(0.8 * 1000 / 4)
  monkeypatch.setattr(memory.free_memory, "available", lambda: 10)
  assert memory.budget(t) == 0


def test_the_largest_network_fits_a_device_of_80_gb(capsys):
  """By arithmetic, and also within the three quarters that XLA takes of it by default."""
  for size in ("80e9", "60e9"):
    memory.main(["", "BiT-M-R152x4", "480", "512", size])
    out = capsys.readouterr().out
    assert "by arithmetic" in out
    assert "3.75 GB   936,533,224 in float32" in out  # 4 bytes each
    found = re.search(
      r"activations of an image +([\d.]+) GB +micro-batches of (\d+): ([\d.]+)", out
    )
    per_image, images, whole = map(float, found.groups())
    assert whole == pytest.approx((5 * 4 * 936_533_224 / 1e9) + images * per_image, rel=0.01)
    assert 2 <= images < 512
    assert whole <= 0.9 * float(size) / 1e9


@pytest.mark.parametrize("arguments", [[], ["R50x1", "128", "512", "many"], list("abcdef")])
def test_a_command_of_another_form(arguments):
  with pytest.raises(errors.UserError, match=r"bit_jax\.memory MODEL CROP IMAGES BYTES"):
    memory.main(["", *arguments])
