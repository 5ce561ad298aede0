"""Saving and resuming: every bit comes back, the last two are kept, damage is a sentence."""

import contextlib
import errno
import fcntl
import json
import logging
import os
import pathlib
import re
import resource
import shutil
import time

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
import tensorstore

from bit_jax.runs import run_folder
from bit_jax.runtime import errors, exits, parallel
from bit_jax.training import checkpoint_record, optimizer, orbax_handlers, resuming, steps


@pytest.fixture(autouse=True)
def _log_level():
  earlier = logging.getLogger("absl").level
  yield
  logging.getLogger("absl").setLevel(earlier)


def state_at(step, seed=0):
  rng = np.random.default_rng(seed + step)
  large = rng.standard_normal((128, 512), np.float32)  # orbax gives it a file
  params = {"a": {"kernel": rng.standard_normal((3, 5), np.float32)}, "b": large}
  state = steps.create_state(params, optimizer.sgd(0.9))
  velocity = jax.tree.map(lambda x: rng.standard_normal(x.shape, np.float32), state.opt_state)
  return state.replace(step=jnp.int32(step), opt_state=velocity)


def opened(folder, name="c", run="this run", **options):
  return resuming.Checkpoints(folder / name, run, **options)


def saved(folder, *numbers, **options):
  """Saves the states after some steps; returns the folder."""
  with opened(folder, **options) as checkpoints:
    for step in numbers:
      checkpoints.save(state_at(step), {"seconds": step / 3, "timed_steps": step})
  return folder / "c"


def restored(folder, like=None, **options):
  """Returns the step that is restored, None if there is none, and what is said of others."""
  lines = []
  with opened(folder, **options) as checkpoints:
    found = checkpoints.restore(state_at(0) if like is None else like, lines.append)
  if found is None:
    return None, lines
  state, progress = found
  step = int(state.step)
  assert_same(state, jax.device_get(state_at(step)))
  assert progress == {"seconds": step / 3, "timed_steps": step}
  return step, lines


def assert_same(a, b):
  assert jax.tree.structure(a) == jax.tree.structure(b)
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
    assert x.dtype == y.dtype
    np.testing.assert_array_equal(x, y)


def test_nothing_there(tmp_path):
  with opened(tmp_path) as checkpoints:
    assert checkpoints.latest_step() == 0


def test_every_bit_comes_back(tmp_path):
  state = state_at(7)
  with opened(tmp_path) as checkpoints:
    checkpoints.save(state, {"seconds": 12.5})
  with opened(tmp_path) as checkpoints:
    assert checkpoints.latest_step() == 7
    found, progress = checkpoints.restore(state_at(0, seed=9), print)
  assert_same(found, jax.device_get(state))
  assert int(found.step) == 7
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
  with opened(tmp_path, "usual") as checkpoints:
    checkpoints.save(state_at(7), {"seconds": 12.5})
  request.getfixturevalue("bare_file_system")
  options = []
  context = tensorstore.Context
  monkeypatch.setattr(tensorstore, "Context", lambda spec: context(options.append(spec) or spec))
  for step in (8, 9):
    with opened(tmp_path) as checkpoints:
      checkpoints.save(state_at(step), {"seconds": 12.5})
  unlocked = {"file_io_locking": {"mode": "none"}, "file_io_sync": False}
  assert unlocked in options
  assert not list(tmp_path.glob("c/**/manifest.ocdbt"))  # the database, which would be locked
  for folder, step in (("usual", 7), ("c", 9)):
    with opened(tmp_path, folder) as checkpoints:
      found, progress = checkpoints.restore(state_at(0), print)
    assert_same(found, jax.device_get(state_at(step)))
    assert progress == {"seconds": 12.5}
  monkeypatch.undo()  # and where there are locks again
  with opened(tmp_path) as checkpoints:
    assert_same(checkpoints.restore(state_at(0), print)[0], jax.device_get(state_at(9)))
  assert capfd.readouterr().err == ""


def test_the_last_two_are_kept(tmp_path):
  with opened(tmp_path) as checkpoints:
    for step in (1, 2, 5):
      checkpoints.save(state_at(step), {"seconds": step})
  with opened(tmp_path) as checkpoints:
    assert checkpoints.latest_step() == 5
    found, progress = checkpoints.restore(state_at(0), print)
  assert_same(found, jax.device_get(state_at(5)))
  assert progress == {"seconds": 5}
  assert {p.name for p in (tmp_path / "c").iterdir()} == {"2", "5"}


def test_the_same_step_again_changes_nothing(tmp_path):
  with opened(tmp_path) as checkpoints:
    checkpoints.save(state_at(3), {"seconds": 1})
    checkpoints.save(state_at(3, seed=1), {"seconds": 2})
  with opened(tmp_path) as checkpoints:
    found, progress = checkpoints.restore(state_at(0), print)
  assert_same(found, jax.device_get(state_at(3)))
  assert progress == {"seconds": 1}


def test_what_is_being_saved_may_be_overwritten(tmp_path):
  """A step gives its state up at once; the save under way must not see what comes next."""
  state = parallel.replicate(state_at(1))
  expected = jax.tree.map(np.array, jax.device_get(state))
  overwrite = jax.jit(lambda s: jax.tree.map(lambda x: x * 0, s), donate_argnums=0)
  with opened(tmp_path) as checkpoints:
    checkpoints.save(state, {})
    jax.block_until_ready(overwrite(state))
  with opened(tmp_path) as checkpoints:
    assert_same(checkpoints.restore(state_at(0), print)[0], expected)


def flip(path, position=None):
  """Flips a bit, by default one in the middle of a file."""
  content = bytearray(path.read_bytes())
  content[len(content) // 2 if position is None else position] ^= 4
  path.write_bytes(content)


def files_below(folder):
  return sorted(p for p in folder.rglob("*") if p.is_file())


def arrays_of(checkpoint):
  """Returns the largest file of a checkpoint, which holds its arrays."""
  return max(files_below(checkpoint / "state"), key=lambda p: p.stat().st_size)


def rewrite(checkpoint, change, *, seal=False):
  """Changes the record of a checkpoint; with its SHA-256 if `seal`."""
  path = checkpoint / "run" / "metadata"
  record = json.loads(path.read_text())
  change(record)
  if seal:
    record["sha256"] = checkpoint_record._seal({k: v for k, v in record.items() if k != "sha256"})
  path.write_text(json.dumps(record))


def lose_digests(checkpoint):
  path = checkpoint / "run" / "metadata"
  path.write_text(json.dumps(json.loads(path.read_text())["progress"]))


def empty(checkpoint):
  for path in files_below(checkpoint / "state"):
    path.write_bytes(b"")


def of_another_run(checkpoint):
  shutil.rmtree(checkpoint)
  saved(checkpoint.parents[1] / "foreign", 9, run="another")
  shutil.move(checkpoint.parents[1] / "foreign/c/9", checkpoint)


def of_another_step(checkpoint):
  shutil.rmtree(checkpoint)
  shutil.copytree(checkpoint.parent / "4", checkpoint)


DAMAGE = {
  "a bit of an array": (
    lambda c: flip(arrays_of(c)),
    "(params|opt_state/.*)/b differs from its SHA",
  ),
  # Which of the two large arrays is read, and fails, first is left to chance.
  "arrays cut": (
    lambda c: os.truncate(arrays_of(c), 100),
    "(params|opt_state.0.trace).b/0.0: Requested byte range",
  ),
  "arrays missing": (lambda c: arrays_of(c).unlink(), "/0.0: Truncated"),
  "all emptied": (empty, "the metadata of state can't be read"),
  "no state": (lambda c: shutil.rmtree(c / "state"), "state is incomplete"),
  "no record": (lambda c: shutil.rmtree(c / "run"), "run is incomplete"),
  "nothing": (lambda c: (shutil.rmtree(c), c.mkdir()), "run is incomplete"),
  "a file": (lambda c: (shutil.rmtree(c), c.write_text("")), "the metadata of run can't be read"),
  "a digest": (
    lambda c: rewrite(c, lambda r: r["arrays"]["step"].__setitem__(1, "0" * 64)),
    "its record differs from the record's SHA-256",
  ),
  "a number": (
    lambda c: rewrite(c, lambda r: r["progress"].update(seconds=9.5)),
    "its record differs from the record's SHA-256",
  ),
  "a name": (
    lambda c: rewrite(c, lambda r: r.update(arrayt=r.pop("arrays"))),
    "its record differs from the record's SHA-256",
  ),
  "cut record": (lambda c: os.truncate(c / "run/metadata", 50), "its record is no JSON"),
  "no digests": (lose_digests, "it has no digests, as those of this run have"),
  "another run": (
    of_another_run,
    "it is of a run with another config, other data or other weights",
  ),
  "another step": (of_another_step, "it holds the state after step 4"),
  "another step in its record": (
    lambda c: (of_another_step(c), rewrite(c, lambda r: r.update(step=9), seal=True)),
    "it holds the state after step 4",
  ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_the_one_before_a_damaged_checkpoint_is_used(tmp_path, damage, caplog, capfd):
  apply, reason = DAMAGE[damage]
  folder = saved(tmp_path, 4, 9)
  apply(folder / "9")
  step, (line,) = restored(tmp_path)
  assert step == 4
  start = f"warning: The checkpoint of step 9 in {folder} can't be used ("
  assert line.startswith(start)
  assert re.search(f"^[^\n]*({reason})", line.removeprefix(start))
  assert line.endswith("): the one of step 4 is used. 9.unusable can be deleted.")
  assert not caplog.records
  assert capfd.readouterr().err == ""
  # It is not in the way of the same step, and the one of step 4 is still kept.
  saved(tmp_path, 9)
  assert restored(tmp_path) == (9, [])
  assert {p.name for p in folder.iterdir()} == {"4", "9", "9.unusable"}


def test_a_second_damaged_checkpoint_of_one_step_replaces_the_first(tmp_path):
  folder = saved(tmp_path, 4, 9)
  for _ in range(2):
    flip(arrays_of(folder / "9"))
    assert restored(tmp_path)[0] == 4
    saved(tmp_path, 9)
  assert restored(tmp_path) == (9, [])


def test_without_a_usable_checkpoint_the_user_is_asked(tmp_path):
  folder = saved(tmp_path, 4, 9)
  flip(arrays_of(folder / "9"))
  shutil.rmtree(folder / "4" / "run")
  said = (
    rf"^No checkpoint in {folder} can be used \(that of step 9: .*; that of step 4: run is "
    rf"incomplete\): restore one from a copy, or delete that folder to train from the first step "
    rf"again\.$"
  )
  before = files_below(folder)
  with pytest.raises(errors.UserError, match=said):
    restored(tmp_path)
  assert files_below(folder) == before


def test_another_network_is_named(tmp_path):
  folder = saved(tmp_path, 4)
  like = state_at(0)
  like = like.replace(params={"a": {"kernel": np.zeros((4, 5), np.float32)}, "b": like.params["b"]})
  said = "params/a/kernel is float32[3, 5] there and float32[4, 5] in this run"
  with pytest.raises(errors.UserError, match=re.escape(said)):
    restored(tmp_path, like)
  lose_digests(folder / "4")  # as an earlier version wrote it
  with pytest.raises(errors.UserError, match="it holds arrays of other shapes"):
    restored(tmp_path, like, older=True)


def test_checkpoints_of_earlier_versions_are_used_with_a_remark(tmp_path):
  folder = saved(tmp_path, 4, 9)
  for step in "49":
    lose_digests(folder / step)
  said = "of step 9 is of an earlier version, without digests of its arrays: it is used unchecked."
  assert restored(tmp_path, older=True) == (9, [f"The checkpoint {said}"])
  # What has lost its digests by damage has more than the two numbers of those versions.
  saved(tmp_path, 11)
  rewrite(folder / "11", lambda r: (r.pop("arrays"), r.pop("sha256")))
  step, lines = restored(tmp_path, older=True)
  assert step == 9
  assert "its record differs from the record's SHA-256" in lines[0]


def test_every_flipped_bit_is_noticed_or_harmless(tmp_path, capfd):
  """A few of each file; `make faults` flips hundreds."""
  folder = saved(tmp_path, 4, 9)
  intact = shutil.copytree(folder / "9", tmp_path / "intact")
  generator = np.random.default_rng(0)
  for path in files_below(intact):
    relative = path.relative_to(intact)
    flip(folder / "9" / relative, generator.integers(path.stat().st_size))
    step, lines = restored(tmp_path)  # it compares every bit
    assert (step, len(lines)) in [(9, 0), (4, 1)], relative
    for changed in ("9", "9.unusable"):
      shutil.rmtree(folder / changed, ignore_errors=True)
    shutil.copytree(intact, folder / "9")
  assert capfd.readouterr().err == ""


class FullError(OSError):
  """An error of a full disk."""

  def __init__(self):
    super().__init__(errno.ENOSPC, os.strerror(errno.ENOSPC))


def full(*_, **__):
  raise FullError


@pytest.mark.parametrize("ends", ["at once", "asked", "next save", "end", "stopped", "failed"])
def test_a_save_that_fails_is_one_sentence_and_the_one_before_is_kept(tmp_path, monkeypatch, ends):
  folder = saved(tmp_path, 4)
  said = (
    rf"^The state after step 9 can't be saved in {folder} \(No space left on device\)\. The state "
    rf"after step 4 is kept\. Fix this, then run the same command again\.$"
  )
  error, message = (ValueError, "^first$") if ends == "failed" else (errors.UserError, said)
  monkeypatch.setattr(checkpoint_record, "make", full)
  with pytest.raises(error, match=message):
    save_on_a_full_disk(tmp_path, monkeypatch, ends)
  monkeypatch.undo()
  assert restored(tmp_path) == (4, [])


def save_on_a_full_disk(folder, monkeypatch, ends):
  with opened(folder) as checkpoints:
    if ends == "at once":
      monkeypatch.setattr(ocp.CheckpointManager, "save", full)
    checkpoints.save(state_at(9), {})
    if ends == "asked":
      while True:
        checkpoints.check()
        time.sleep(0.01)
    elif ends == "next save":
      checkpoints.save(state_at(11), {})
    elif ends == "stopped":
      raise exits.Interrupted("saved up to step 9")
    elif ends == "failed":
      raise ValueError("first")


def test_interrupted_saves_are_removed(tmp_path):
  folder = saved(tmp_path, 4)
  shutil.copytree(folder / "4", folder / "9.orbax-checkpoint-tmp")
  (folder / "9.txt").write_text("the user's")
  assert restored(tmp_path)[0] == 4
  assert {p.name for p in folder.iterdir()} == {"4", "9.txt"}


KEPT = "it may be intact, and is kept. "
READS = [(pathlib.Path, "read_bytes"), (resuming, "read_arrays"), (checkpoint_record, "_digest")]


@pytest.mark.parametrize("place", READS, ids=lambda place: place[1])
@pytest.mark.parametrize(
  ("error", "said"),
  [
    (OSError(errno.EACCES, "Permission denied", "/f"), f"(/f: Permission denied); {KEPT}Fix this"),
    (OSError(errno.EMFILE, "Too many open files"), f"c/9: Too many open files); {KEPT}Fix this"),
    (MemoryError(), f"c/9: Cannot allocate memory); {KEPT}End other programs"),
    (ValueError("RESOURCE_EXHAUSTED: memory"), f"c/9: RESOURCE_EXHAUSTED: memory); {KEPT}End "),
    (RuntimeError("can't start new thread"), f"c/9: can't start new thread); {KEPT}End other"),
  ],
)
def test_a_checkpoint_that_may_be_intact_is_not_passed_over(
  tmp_path, monkeypatch, place, error, said
):
  folder = saved(tmp_path, 4, 9)

  def fail(*_):
    raise error

  monkeypatch.setattr(*place, fail)
  with pytest.raises(errors.UserError, match=re.escape(said)) as raised:
    restored(tmp_path)
  assert str(raised.value).startswith("The checkpoint of step 9 can't be read (")
  monkeypatch.undo()
  assert restored(tmp_path) == (9, [])
  assert {p.name for p in folder.iterdir()} == {"4", "9"}


def test_a_folder_that_may_not_be_looked_into_is_not_empty(tmp_path, monkeypatch):
  """Python says of each file there that it doesn't exist, which orbax believes."""
  folder = saved(tmp_path, 4, 9)
  stat = os.stat

  def refuse(path, *more, **options):
    if isinstance(path, str | os.PathLike) and str(path).startswith(f"{folder}/9/state/"):
      raise PermissionError(errno.EACCES, "Permission denied", str(path))
    return stat(path, *more, **options)

  monkeypatch.setattr(os, "stat", refuse)
  with pytest.raises(errors.UserError, match=r"9/state/.*: Permission denied\); it may be intact"):
    restored(tmp_path)
  monkeypatch.undo()
  assert restored(tmp_path) == (9, [])


@contextlib.contextmanager
def no_more_files():
  """Lets this process open no file."""
  limits = resource.getrlimit(resource.RLIMIT_NOFILE)
  os.close(lowest := os.dup(1))
  resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, limits[1]))
  try:
    yield
  finally:
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_a_limit_on_open_files_is_no_damage(tmp_path, monkeypatch):
  """The error is tensorstore's own, a text."""
  folder = saved(tmp_path, 4, 9)

  def read(there, _):
    store = tensorstore.KvStore.open(f"file://{there}/").result()
    with no_more_files():
      return store.read("manifest.ocdbt").result()

  monkeypatch.setattr(resuming, "read_arrays", read)
  said = r"c/9/state/manifest.ocdbt: Too many open files\); it may be intact"
  with pytest.raises(errors.UserError, match=said):
    restored(tmp_path)
  monkeypatch.undo()
  assert restored(tmp_path) == (9, [])
  assert {p.name for p in folder.iterdir()} == {"4", "9"}


def test_what_is_no_step_is_passed_over(tmp_path):
  folder = saved(tmp_path, 4)
  for name in ("\N{SUPERSCRIPT TWO}", "\N{ARABIC-INDIC DIGIT SEVEN}", "07", "5.unusable"):
    (folder / name).mkdir()
  assert run_folder.saved_step(folder.parent) == 0
  assert run_folder.checkpoint_steps(folder) == [4]
  assert restored(tmp_path) == (4, [])


def test_a_record_that_is_nested_too_deeply_is_damaged():
  """Python may read what it then can't write, for its SHA-256."""
  inner = b"[" * 60 + b"]" * 60
  text = b'{"step": 1, "run": "", "arrays": {}, "sha256": "", "progress": ' + inner + b"}"
  with pytest.raises(checkpoint_record.UnusableError, match=r"^its record is no JSON$"):
    checkpoint_record.parse(text)


def test_orbax_writes_each_array_by_the_method_that_is_overridden(tmp_path, monkeypatch):
  """The method is private: under another name, the errors of arrays would print tracebacks."""
  written, each = [], orbax_handlers._each

  async def noted(do, *lists):
    written.append((do.__name__, len(lists[0])))
    return await each(do, *lists)

  monkeypatch.setattr(orbax_handlers, "_each", noted)
  saved(tmp_path, 4)
  assert written == [("_background_serialize", len(jax.tree.leaves(state_at(4))))]
