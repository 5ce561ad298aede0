"""Which evaluation is the best, and when waiting for a better one is over."""

import types

import jax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bit_jax.runtime import errors, processes
from bit_jax.training import agreement, evaluation


@pytest.mark.parametrize(
  ("evaluations", "patience", "expected"),
  [
    ({}, 1, False),
    ({5: 0.1}, 1, False),  # the best so far is the last one
    ({5: 0.1, 10: 0.2}, 1, False),
    ({5: 0.2, 10: 0.1}, 1, True),
    ({5: 0.2, 10: 0.2}, 1, True),  # as good is not better
    ({5: 0.2, 10: 0.1}, 2, False),
    ({5: 0.2, 10: 0.1, 15: 0.19}, 2, True),
    ({5: 0.2, 10: 0.1, 15: 0.21}, 2, False),
    ({5: 0.2, 10: 0.1, 15: 0.21, 20: 0.2, 25: 0.21}, 2, True),
    ({5: 0.0, 10: 0.0, 15: 0.0}, 2, True),
    ({5: 0.2, 10: 0.1, 15: 0.1, 20: 0.1}, None, False),
  ],
)
def test_patience(evaluations, patience, expected):
  assert evaluation.exhausted(evaluations, patience) == expected


@given(st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), min_size=1), st.integers(1, 5))
def test_waiting_is_counted_from_the_last_improvement(scores, patience):
  waited, best = 0, -1.0
  for score in scores:
    waited = 0 if score > best else waited + 1
    best = max(best, score)
  evaluations = {10 * (i + 1): score for i, score in enumerate(scores)}
  assert evaluation.exhausted(evaluations, patience) == (waited >= patience)


def test_discard_removes_its_own_files_alone(tmp_path):
  for name in ("best-2.npz", "best-4.npz", "best-14.npz", "model.npz"):
    (tmp_path / name).write_text("")
  evaluation.discard(tmp_path, [4, 6])
  assert sorted(p.name for p in tmp_path.iterdir()) == ["best-4.npz", "model.npz"]
  evaluation.discard(tmp_path)
  evaluation.discard(tmp_path)  # nothing there is no mistake
  assert [p.name for p in tmp_path.iterdir()] == ["model.npz"]


@pytest.mark.parametrize(("saved", "kept"), [([4, 6], {4, 5, 7}), ([6], {5, 7}), ([], {7})])
def test_every_checkpoint_that_a_run_may_resume_from_has_its_best_weights(tmp_path, saved, kept):
  evaluations = {3: 0.1, 4: 0.2, 5: 0.3, 7: 0.4}
  for step in evaluations:
    evaluation.weights_path(tmp_path, step).write_text("")
  config = types.SimpleNamespace(keep_best=True, test_size=32)
  run = types.SimpleNamespace(config=config, is_first=True, folder=tmp_path)
  reporter = types.SimpleNamespace(evaluations=evaluations)
  evaluator = evaluation.Evaluator(run, reporter, None, None, None, 1, None, None)
  evaluator.discard(saved)
  assert {p.name for p in tmp_path.iterdir()} == {f"best-{step}.npz" for step in kept}


@pytest.mark.parametrize("use", ["_best", "recover"])
def test_a_process_that_does_not_see_the_best_weights_uses_no_others(tmp_path, monkeypatch, use):
  """This is process 1, which sees the weights after step 3 only; process 0 sees all."""
  monkeypatch.setattr(agreement, "_VISIBLE", 0)
  monkeypatch.setattr(jax, "process_index", lambda: 1)
  monkeypatch.setattr(processes, "gather", lambda value: [[4], value])
  evaluation.weights_path(tmp_path, 3).write_text("")
  config = types.SimpleNamespace(keep_best=True, test_size=32, model="R50x1", eval_every=4)
  model = types.SimpleNamespace(num_classes=10)
  run = types.SimpleNamespace(config=config, is_first=False, folder=tmp_path, model=model)
  evaluations = {3: 0.1, 4: 0.2} if use == "_best" else {}
  reporter = types.SimpleNamespace(evaluations=evaluations)
  evaluator = evaluation.Evaluator(run, reporter, None, None, None, 1, None, None)
  with pytest.raises(errors.UserError, match=r"^Process 1 on .* doesn't see .*best-4\.npz"):
    getattr(evaluator, use)(6)


def test_the_first_of_equals_is_the_best():
  assert evaluation.best({3: 0.5, 1: 0.25, 2: 0.5}) == 2
