"""Tests of experiments/upstream_cifar100.py: what it plans; to be run it needs a GPU."""

import collections

import pytest
import running

from bit_jax import hyperrule
from bit_jax.runtime import exits
from experiments import sweep, upstream_cifar100
from experiments.sweeping import grid

FILE = str(running.ROOT / "experiments/upstream_cifar100.py")


@pytest.fixture(scope="module")
def planned():
  found = grid.load(FILE)
  assert [one.mistake for one in found] == [None] * 13
  return found


def test_the_pretraining_is_the_papers_in_epochs(planned):
  first = planned[0]
  c = first.config
  assert (c.model, c.weights, c.dataset, c.shots) == ("R50x1", "none", "cifar100", None)
  assert first.spec.num_train == upstream_cifar100.NUM_TRAIN
  epochs = [step * c.batch_size / first.spec.num_train for step in (*c.decay_steps, c.total_steps)]
  assert epochs == pytest.approx([30, 60, 80, 90], abs=0.01)
  assert c.warmup_steps / c.total_steps == pytest.approx(5_000 / 28_100, abs=2e-3)
  assert c.base_lr == pytest.approx(0.48 * c.batch_size / 4_096)  # the paper's rate at its batch
  assert (c.mixup_alpha, c.momentum) == (0, 0.9)
  assert c.checkpoint_every == c.total_steps // 20  # what a kill costs at most


def test_what_follows_is_the_whole_rule(planned):
  for one in planned[1:]:
    c = one.config
    assert (c.dataset, c.model, c.dtype) == ("cifar10", "R50x1", "auto")
    assert (c.resize, c.crop, c.test_size, c.batch_size, c.base_lr) == (160, 128, 128, 512, 0.003)
    rule = hyperrule.REGIMES[0 if c.shots else 1]
    assert (c.total_steps, c.warmup_steps, c.decay_steps, c.mixup_alpha) == (
      *(rule.total_steps, rule.warmup_steps, rule.decay_steps, rule.mixup_alpha),
    )
    assert c.eval_every >= c.total_steps
    assert (c.random_crop, c.random_flip, c.reason) == (True, True, "")


def test_half_of_it_starts_from_the_pretraining(planned):
  upstream, *others = planned
  assert upstream.after is None
  counts = collections.Counter((one.after, one.labels["start"], one.config.shots) for one in others)
  assert counts == {
    (upstream.name, "pre-trained on CIFAR-100", 10): 5,
    (upstream.name, "pre-trained on CIFAR-100", None): 1,
    (None, "random initialisation", 10): 5,
    (None, "random initialisation", None): 1,
  }
  for one in others:
    assert one.config.weights == (f"{one.after}/model.npz" if one.after else "none")
  assert {one.config.seed for one in others if one.config.shots} == set(range(5))


def test_what_it_takes_is_what_it_says(capsys, tmp_path):
  argv = ["sweep", f"--config={FILE}", f"--out={tmp_path / 'out'}", "--dry_run"]
  assert exits.run(sweep.main, argv) == 0
  lines = capsys.readouterr().out.splitlines()
  assert "13 runs: 17,299,968 images, 139.02 PFLOP, 6.12 GB of disk." in lines
  says = " ".join(upstream_cifar100.__doc__.split())
  assert "17 million images: by `--dry_run` 139 PFLOP and 6.1 GB of disk" in says
