"""Saving and resuming: every bit comes back, the newest is kept, damage is a sentence."""

import errno
import fcntl
import logging
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorstore

from bit_jax.runtime import errors, parallel
from bit_jax.training import optimizer, resuming, steps


@pytest.fixture(autouse=True)
def _log_level():
  earlier = logging.getLogger("absl").level
  yield
  logging.getLogger("absl").setLevel(earlier)


def state_at(step, seed=0):
  rng = np.random.default_rng(seed + step)
  params = {"a": {"kernel": rng.standard_normal((3, 5), np.float32)}, "b": np.ones(2, np.float32)}
  state = steps.create_state(params, optimizer.sgd(0.9))
  velocity = jax.tree.map(lambda x: rng.standard_normal(x.shape, np.float32), state.opt_state)
  return state.replace(step=jnp.int32(step), opt_state=velocity)


def assert_same(a, b):
  assert jax.tree.structure(a) == jax.tree.structure(b)
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
    assert x.dtype == y.dtype
    np.testing.assert_array_equal(x, y)


def test_nothing_there(tmp_path):
  with resuming.Checkpoints(tmp_path / "c") as checkpoints:
    assert checkpoints.latest_step() == 0


def test_every_bit_comes_back(tmp_path):
  state = state_at(7)
  with resuming.Checkpoints(tmp_path / "c") as checkpoints:
    checkpoints.save(state, {"seconds": 12.5})
  with resuming.Checkpoints(tmp_path / "c") as checkpoints:
    assert checkpoints.latest_step() == 7
    restored, progress = checkpoints.restore(state_at(0, seed=9))
  assert_same(restored, jax.device_get(state))
  assert int(restored.step) == 7
  assert progress == {"seconds": 12.5}


@pytest.fixture
def bare_file_system(monkeypatch):
  """A file system whose files can neither be locked nor synced."""

  def fail(*_):
    raise OSError(errno.ENOSYS, "Function not implemented")

  monkeypatch.setattr(fcntl, "flock", fail)
  monkeypatch.setattr(os, "fsync", fail)


def test_without_locks_nothing_is_locked_and_every_bit_comes_back(
  tmp_path, request, monkeypatch, capfd
):
  with resuming.Checkpoints(tmp_path / "usual") as checkpoints:
    checkpoints.save(state_at(7), {"seconds": 12.5})
  request.getfixturevalue("bare_file_system")
  options = []
  context = tensorstore.Context
  monkeypatch.setattr(tensorstore, "Context", lambda spec: context(options.append(spec) or spec))
  for step in (8, 9):
    with resuming.Checkpoints(tmp_path / "c") as checkpoints:
      checkpoints.save(state_at(step), {"seconds": 12.5})
  unlocked = {"file_io_locking": {"mode": "none"}, "file_io_sync": False}
  assert unlocked in options
  assert not list(tmp_path.glob("c/**/manifest.ocdbt"))  # the database, which would be locked
  for folder, step in (("usual", 7), ("c", 9)):
    with resuming.Checkpoints(tmp_path / folder) as checkpoints:
      restored, progress = checkpoints.restore(state_at(0))
    assert_same(restored, jax.device_get(state_at(step)))
    assert progress == {"seconds": 12.5}
  monkeypatch.undo()  # and where there are locks again
  with resuming.Checkpoints(tmp_path / "c") as checkpoints:
    assert_same(checkpoints.restore(state_at(0))[0], jax.device_get(state_at(9)))
  assert capfd.readouterr().err == ""


def test_only_the_newest_is_kept(tmp_path):
  with resuming.Checkpoints(tmp_path / "c") as checkpoints:
    for step in (1, 2, 5):
      checkpoints.save(state_at(step), {"seconds": step})
  with resuming.Checkpoints(tmp_path / "c") as checkpoints:
    assert checkpoints.latest_step() == 5
    restored, progress = checkpoints.restore(state_at(0))
  assert_same(restored, jax.device_get(state_at(5)))
  assert progress == {"seconds": 5}
  assert [p.name for p in (tmp_path / "c").iterdir() if p.name.isdigit()] == ["5"]


def test_the_same_step_again_changes_nothing(tmp_path):
  with resuming.Checkpoints(tmp_path / "c") as checkpoints:
    checkpoints.save(state_at(3), {"seconds": 1})
    checkpoints.save(state_at(3, seed=1), {"seconds": 2})
  with resuming.Checkpoints(tmp_path / "c") as checkpoints:
    restored, progress = checkpoints.restore(state_at(0))
  assert_same(restored, jax.device_get(state_at(3)))
  assert progress == {"seconds": 1}


def test_what_is_being_saved_may_be_overwritten(tmp_path):
  """A step gives its state up at once; the save under way must not see what comes next."""
  state = parallel.replicate(state_at(1))
  expected = jax.tree.map(np.array, jax.device_get(state))
  overwrite = jax.jit(lambda s: jax.tree.map(lambda x: x * 0, s), donate_argnums=0)
  with resuming.Checkpoints(tmp_path / "c") as checkpoints:
    checkpoints.save(state, {})
    jax.block_until_ready(overwrite(state))
  with resuming.Checkpoints(tmp_path / "c") as checkpoints:
    assert_same(checkpoints.restore(state_at(0))[0], expected)


@pytest.mark.parametrize("damage", ["emptied", "removed", "other shapes"])
def test_damage_is_a_sentence(tmp_path, damage):
  with resuming.Checkpoints(tmp_path / "c") as checkpoints:
    checkpoints.save(state_at(4), {})
  like = state_at(0)
  for path in (tmp_path / "c" / "4" / "state").rglob("*"):
    if path.is_file() and damage == "emptied":
      path.write_bytes(b"")
    elif path.is_file() and damage == "removed":
      path.unlink()
  if damage == "other shapes":
    like = like.replace(params={"a": {"kernel": np.zeros((4, 5), np.float32)}, "b": np.ones(2)})
  with (
    resuming.Checkpoints(tmp_path / "c") as checkpoints,
    pytest.raises(errors.UserError, match=r"checkpoint of step 4 .* can't be read .*: delete it"),
  ):
    checkpoints.restore(like)
