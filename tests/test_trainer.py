"""Runs from beginning to end: what they leave behind, and that they can be repeated and resumed."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import running
from matplotlib import image as mpl_image

from bit_jax import (
  architectures,
  errors,
  interruption,
  models,
  optimizer,
  parallel,
  steps,
  trainer,
  weights,
)
from bit_jax.data import datasets, device, fewshot, opening, order
from bit_jax.weights import download

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def _compilation_cache(tmp_path_factory):
  with running.compilation_cache(tmp_path_factory):
    yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
  """The folder and result of an uninterrupted run with MixUp, and how often its step was traced."""
  folder = tmp_path_factory.mktemp("finished") / "run"
  parallel.train_function.cache_clear()  # else a test before may have traced it already
  step, traces = steps.train_step, []
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(steps, "train_step", lambda *a, **k: (traces.append(0), step(*a, **k))[1])
    return folder, running.train(folder), len(traces)


@pytest.fixture(scope="module")
def digits():
  opened = opening.open_set(datasets.find("digits", "select"))
  return opened.train, opened.test


def test_the_folder_is_complete(finished):
  folder, result, _ = finished
  names = {p.name for p in folder.iterdir() if not p.name.startswith("events.")}
  assert names == {
    *("config.json", "environment.json", "classes.txt", "parameters.txt", "metrics.jsonl"),
    *("curves.png", "augmented.png", "predictions.png", "model.npz", "fewshot.json"),
    *("per_class.csv", "confusion.csv", "confusion.png"),
    *("result.json", "checkpoints", ".lock"),
  }
  assert json.loads((folder / "result.json").read_text()) == result
  assert (result["num_test"], result["steps"]) == (159, 6)
  assert result["images_per_second"] == pytest.approx(5 * 16 / result["seconds"])
  config = json.loads((folder / "config.json").read_text())
  assert (config["batch_size"], config["decay_steps"]) == (16, [2, 4, 5])
  environment = json.loads((folder / "environment.json").read_text())
  assert environment["dtype"] == "float32"
  assert environment["data"].startswith("digits of scikit-learn ")
  assert (environment["weights"], environment["weights_sha256"]) == ("none", None)
  assert (folder / "classes.txt").read_text().split() == list("0123456789")
  for name in ("curves.png", "augmented.png", "predictions.png", "confusion.png"):
    assert np.ptp(mpl_image.imread(folder / name)[..., :3]) > 0.9  # not blank


def test_the_metrics_agree_with_the_result(finished):
  folder, result, _ = finished
  assert [(r["step"], r["kind"]) for r in running.rows(folder)] == [
    *[(2, "train"), (3, "eval"), (4, "train"), (6, "train"), (6, "eval")]
  ]
  last = running.rows(folder, "eval")[-1]
  assert (last["loss"], last["top1"]) == (result["loss"], result["top1"])
  c = running.config()
  rates = optimizer.learning_rates(0.003, 1, (2, 4, 5), c.total_steps)
  written = [r["learning_rate"] for r in running.rows(folder, "train")]
  assert written == [float(rates[i - 1]) for i in (2, 4, 6)]
  assert running.scalars(folder, "eval/top1") == [
    (r["step"], pytest.approx(r["top1"])) for r in running.rows(folder, "eval")
  ]


def test_the_first_loss_is_that_of_a_head_of_zeros(finished):
  """Rates of step 0 (warm-up) and an all-zero head leave every logit at zero."""
  first = running.rows(finished[0], "train")[0]
  assert first["loss"] == pytest.approx(np.log(10), abs=1e-5)


def test_the_exported_weights_score_the_same_over_every_image_once(finished, digits):
  folder, result, _ = finished
  architecture = architectures.find("R14x0.5")
  loaded = weights.load(folder / "model.npz", architecture, head="keep", num_classes=10)
  test = digits[1]
  images = device.prepare_eval(jnp.asarray(test.images), 32)
  apply = jax.jit(models.create("R14x0.5", 10).apply)
  logits = np.asarray(apply({"params": loaded.params}, images)[0], np.float64)
  shifted = logits - logits.max(1, keepdims=True)
  losses = np.log(np.exp(shifted).sum(1)) - shifted[np.arange(159), test.labels]
  assert len(test) % 52 % 4  # neither batches nor devices divide them evenly
  assert result["top1"] == pytest.approx(np.mean(logits.argmax(1) == test.labels), abs=1e-7)
  assert result["loss"] == pytest.approx(losses.mean(), abs=1e-5)


def test_the_subset_is_recorded(finished, digits):
  record = json.loads((finished[0] / "fewshot.json").read_text())
  train = digits[0]
  np.testing.assert_array_equal(np.bincount(train.labels[record["indices"]]), np.full(10, 3))
  assert record["indices"] == fewshot.select(train.labels, 3, 0, train.class_names).tolist()


def test_the_same_seed_gives_the_same_weights_and_another_others(finished, tmp_path):
  running.train(tmp_path / "again")
  assert (tmp_path / "again/model.npz").read_bytes() == (finished[0] / "model.npz").read_bytes()
  running.train(tmp_path / "other", running.ARGUMENTS + ",seed=1")
  first, other = running.arrays(finished[0]), running.arrays(tmp_path / "other")
  kernel = "resnet/head/conv2d/kernel"
  assert first[kernel].any()
  assert not np.allclose(first[kernel], other[kernel])


def test_a_finished_folder_is_not_run_again(finished, capsys, monkeypatch):
  monkeypatch.setattr(trainer, "_train", lambda *_: pytest.fail("it trained"))
  folder, result, _ = finished
  assert running.train(folder) == result
  assert "is finished; this is its result" in capsys.readouterr().out


def test_a_folder_of_another_config_is_refused(finished):
  with pytest.raises(errors.UserError, match=r"base_lr: 0\.003 there, 0\.5 now"):
    running.train(finished[0], base_lr=0.5)


@pytest.mark.parametrize("stop_after", [2, 4])
def test_an_interrupted_run_ends_as_if_it_had_not_been(finished, tmp_path, monkeypatch, stop_after):
  """Step 2 has no regular checkpoint; at step 4 there is one of step 3 to replace."""
  said = f"Stopped after step {stop_after} of 6; the same command goes on from there"
  with monkeypatch.context() as patch:
    patch.setattr(interruption, "StopRequest", lambda: StopAfter(stop_after))
    with pytest.raises(interruption.Interrupted, match=said):
      running.train(tmp_path)
  assert not (tmp_path / "result.json").exists()
  result = running.train(tmp_path)
  whole, expected, _ = finished
  assert {k: result[k] for k in ("loss", "top1")} == {k: expected[k] for k in ("loss", "top1")}
  assert (tmp_path / "model.npz").read_bytes() == (whole / "model.npz").read_bytes()
  assert [comparable(r) for r in running.rows(tmp_path)] == [
    comparable(r) for r in running.rows(whole)
  ]


def comparable(row):
  return {k: v for k, v in row.items() if k not in ("images_per_second", "input_wait_share")}


class StopAfter:
  """A `StopRequest` that is requested when it is asked, once a step, for the n-th time."""

  def __init__(self, n):
    self._left = n

  @property
  def requested(self):
    self._left -= 1
    return self._left <= 0

  def __enter__(self):
    return self

  def __exit__(self, *_):
    pass


def test_a_run_that_died_before_its_result_only_ends(finished, tmp_path, monkeypatch):
  whole, expected, _ = finished
  shutil.copytree(whole, tmp_path / "run")
  for name in ("result.json", "model.npz", "curves.png"):
    (tmp_path / "run" / name).unlink()
  monkeypatch.setattr(trainer._Loop, "_step", lambda *_: pytest.fail("it took a step"))
  result = running.train(tmp_path / "run")
  assert (result["loss"], result["top1"]) == (expected["loss"], expected["top1"])
  assert (tmp_path / "run/model.npz").read_bytes() == (whole / "model.npz").read_bytes()
  assert running.rows(tmp_path / "run") == running.rows(whole)
  assert (tmp_path / "run/curves.png").exists()


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
  with pytest.raises(errors.UserError) as e:
    running.train(tmp_path, base_lr=1e30, log_every=1, checkpoint_every=1)
  message = str(e.value)
  assert "The loss is not finite at step 3 (learning rate 1e+30, float32)" in message
  assert "try a smaller base_lr (now 1e+30), a longer warm-up (now 1 steps)" in message
  assert "state after step 2 is kept" in message
  kept = [p.name for p in (tmp_path / "checkpoints").iterdir() if p.name.isdigit()]
  assert kept == ["2"]
  assert not (tmp_path / "result.json").exists()
  assert all(np.isfinite(r["loss"]) for r in running.rows(tmp_path))


def test_a_run_traces_its_step_once(finished):
  assert finished[2] == 1


def three_steps(num_devices, train, events):
  """Takes three steps with MixUp; returns losses, parameters and how many events each caused."""
  model = models.create("R14x0.5", 10)
  variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
  given = (
    steps.create_state(jax.device_get(variables["params"]), optimizer.sgd(0.9)),
    parallel.Examples(train.images, train.labels),
  )
  place = jax.pmap(lambda t, _: t, "devices", in_axes=(None, 0), out_axes=None)
  state, examples = place(given, np.zeros(num_devices))
  step = parallel.train_function(model, 0.9, 40, 32)
  layout = order.device_layout(16, num_devices)
  losses, counts = [], []
  for i in range(3):
    events.clear()
    state, part = step(
      state,
      examples,
      parallel.Share(
        order.batch(0, i, 16, len(train))[layout].astype(np.int32), layout.astype(np.int32)
      ),
      parallel.StepArguments(
        key=jax.random.key(0),
        lam=np.float32(order.mixup_lambda(0, i, 0.5)),
        learning_rate=np.float32(0.01),
        flip=np.bool_(True),
        random_crop=np.bool_(True),
      ),
    )
    counts.append(len(events))
    losses.append(float(part.loss.compute()))
  return losses, jax.device_get(state.params), counts


@pytest.fixture
def compilations():
  """A list that grows with everything JAX traces, lowers or compiles."""
  seen = []

  def note(event, seconds, **_):
    if event.startswith("/jax/core/compile/"):
      seen.append((event, seconds))

  jax.monitoring.register_event_duration_secs_listener(note)
  yield seen
  jax.monitoring.unregister_event_duration_listener(note)


def test_one_device_and_four_take_the_same_steps_and_compile_once(digits, compilations):
  assert order.mixup_lambda(0, 1, 0.5) < 0.9  # MixUp does mix
  train = digits[0].take(np.arange(30))  # as many as in the runs, whose compilation is shared,
  parallel.train_function.cache_clear()  # but not their tracing
  four = three_steps(4, train, compilations)
  one = three_steps(1, train, compilations)
  np.testing.assert_allclose(four[0], one[0], atol=1e-5)
  assert len(set(four[0])) == 3
  for a, b in zip(jax.tree.leaves(four[1]), jax.tree.leaves(one[1]), strict=True):
    np.testing.assert_allclose(a, b, atol=1e-5)
  assert min(four[2][0], one[2][0]) > 0
  assert four[2][1:] == one[2][1:] == [0, 0]


@pytest.mark.parametrize(
  ("changes", "arguments", "said"),
  [
    ({"batch_size": 12}, running.ARGUMENTS, "4 devices can't share a batch of 12: .* 8 or 16"),
    ({"batch_size": 6}, running.ARGUMENTS, "the nearest sizes that fit: 8"),
    (
      {},
      "weights=none,shots=200",
      "200 images of every class are needed to choose from, but 0 has ",
    ),
    ({"dataset": "digit"}, running.ARGUMENTS, "no data set 'digit'"),
    ({"head": "keep"}, running.ARGUMENTS, "head=keep needs a checkpoint"),
    ({}, "weights=nowhere.npz,shots=3", r"nowhere\.npz"),
  ],
)
def test_mistakes(tmp_path, changes, arguments, said):
  with pytest.raises(errors.UserError, match=said):
    running.train(tmp_path / "run", arguments, **changes)


def test_a_folder_below_a_file(tmp_path):
  (tmp_path / "file").write_text("")
  with pytest.raises(errors.UserError, match="can't be written"):
    running.train(tmp_path / "file" / "sub")


def test_without_weights_and_network(tmp_path, monkeypatch):
  monkeypatch.setattr(download, "RETRY_DELAYS", ())
  closed = "http://127.0.0.1:9"  # nothing listens there
  for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
    monkeypatch.setenv(name, closed)
  monkeypatch.setenv("BIT_JAX_MIRRORS", closed)
  with pytest.raises(errors.UserError, match=r"BiT-M-R50x1.*reach"):
    running.train(tmp_path, "model=BiT-M-R50x1,shots=3")


def test_a_set_that_is_not_prepared(tmp_path):
  with pytest.raises(errors.UserError, match=r"cifar10 .* is not prepared"):
    running.train(tmp_path / "run", dataset="cifar10", data_dir=str(tmp_path / "tfds"))
