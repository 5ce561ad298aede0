"""Faults are counted by how a run ends, and a checkpoint that is restored wrongly is noticed."""

import json

import numpy as np
import pytest

from bit_jax.training import checkpoint_record, optimizer, resuming, steps
from experiments.reliability.faults import bench, checkpoints, tally


@pytest.fixture
def target(tmp_path):
  """Two checkpoints of a network of two arrays."""
  random = np.random.default_rng(0)
  params = {"a": random.standard_normal((128, 512), np.float32), "b": np.ones(3, np.float32)}
  state = steps.create_state(params, optimizer.sgd(0.9))
  folder = tmp_path / "run" / "checkpoints"
  folder.parent.mkdir()
  with resuming.Checkpoints(folder, "this") as saving:
    for step in (3, 6):
      saving.save(state.replace(step=np.int32(step)), {"seconds": 1.0, "timed_steps": step})
  return checkpoints.Target(folder, state)


def test_no_damage_of_a_checkpoint_goes_unnoticed(target, tmp_path, capsys):
  counts = tally.Tally()
  checkpoints.damage_checkpoints(target, counts, np.random.default_rng(1), flips=1)
  lost = {kind: ended.lost for kind, ended in counts.kinds.items()}
  assert lost == dict.fromkeys(lost, 0), capsys.readouterr().out
  files = len(target.files())
  assert counts.kinds["a missing file"].recovered >= 5
  flips, foreign = counts.kinds["a flipped bit"], counts.kinds["a foreign checkpoint"]
  assert flips.harmless + flips.recovered == files
  assert (foreign.recovered, foreign.harmless) == (4, 0)
  assert counts.kinds["both damaged"].refused == 1
  tally.write(tmp_path / "records.jsonl", counts, seed=1)
  rows = [json.loads(line) for line in (tmp_path / "records.jsonl").read_text().splitlines()]
  assert {row["kind"]: row["injected"] for row in rows}["a flipped bit"] == files
  assert [line.split("  ")[0] for line in tally.table(counts).splitlines()[1:]] == list(lost)


def test_without_digests_a_flipped_bit_would_be_counted_as_lost(target, monkeypatch, capsys):
  monkeypatch.setattr(checkpoint_record, "require_intact", lambda *_: None)
  counts = tally.Tally()
  path = max(target.files(), key=lambda p: p.stat().st_size)
  content = bytearray(path.read_bytes())
  content[len(content) // 2] ^= 1
  name = str(path.relative_to(target.intact))
  target.check(counts, "a flipped bit", name, lambda c: (c / name).write_bytes(bytes(content)))
  assert counts.kinds["a flipped bit"].lost == 1
  assert "LOST (a flipped bit): state/" in capsys.readouterr().out


@pytest.mark.parametrize(
  ("status", "err", "expected"),
  [
    (2, "error: No space left on device.\n", True),
    (2, "warning: no cache.\nerror: No space left on device.\n", True),
    (2, "error: one\nerror: two\n", False),
    (2, "Traceback (most recent call last):\nerror: No space left on device.\n", False),
    (1, "error: No space left on device.\n", False),
    (2, "", False),
  ],
)
def test_a_run_is_refused_with_one_sentence(status, err, expected):
  assert bench.Ended(status, "step 1/8\n", err).is_one_sentence() == expected
