"""What earlier versions left: their run folders and names are found, resumed and reported."""

import dataclasses
import json
import pathlib
import shutil

import numpy as np
import pytest
import resolving
import running
from absl import flags
from ml_collections import ConfigDict

from bit_jax import run_config
from bit_jax.configs import npz
from bit_jax.data import pipeline
from bit_jax.runs import run_folder
from bit_jax.runtime import config_flags, errors
from bit_jax.training import fine_tuning, setup
from experiments.results import collect, recipes
from experiments.sweeping import grid

RUN_FIELDS = [field.name for field in dataclasses.fields(setup.Run)]
RUNS = pathlib.Path(__file__).parent / "earlier_runs"
FIELDS = {
  "batch_size": 16,
  "resize": 40,
  "crop": 32,
  "total_steps": 40,
  "log_every": 5,
  "eval_every": 10,
  "checkpoint_every": 10,
  "eval_batch_size": 12,
  "mixup_alpha": 0.1,
  "momentum_dtype": "bfloat16",
  "base_lr": 0.02,
}

# The command line after --config=configs/, and the run folder of version 0.1.
NAMES = [
  ("quickstart.py", "quickstart-R14x0.5-5shot-s0-1467eef1"),
  (
    "quickstart.py:weights=none,shots=3,seed=4 --config.total_steps=7",
    "quickstart-R14x0.5-3shot-s4-799b1eb6",
  ),
  ("cifar10.py", "cifar10-BiT-M-R50x1-full-s0-e2222d79"),
  (
    "cifar10.py:model=BiT-M-R101x3,shots=5,seed=1,preset=readme_128",
    "cifar10-BiT-M-R101x3-5shot-s1-9d66fbed",
  ),
  (
    "cifar100.py:preset=paper,protocol=select --config.batch_size=256",
    "cifar100-BiT-M-R50x1-full-s0-eb2d938c",
  ),
  (
    "imagenet2012.py:shots=25,resolution=paper --config.keep_best=True --config.patience=3",
    "imagenet2012-BiT-M-R50x1-25shot-s0-356adfc3",
  ),
  ("vtab.py:task=svhn", "vtab-svhn-BiT-M-R50x1-full-s0-61ebe64f"),
  (
    "oxford_flowers102.py:model=BiT-M-R152x4,crop=False --config.dtype=bfloat16 "
    "--config.shuffle_window=1000",
    "oxford_flowers102-BiT-M-R152x4-full-s0-8a67e05c",
  ),
  (
    "cats_vs_dogs.py --config.min_side=100 --config.microbatch=16 --config.decay_steps=(5,6)",
    "cats_vs_dogs-BiT-M-R50x1-full-s0-7cf5b545",
  ),
  (
    "npz.py:model=R14x0.5,weights=none,seed=3,path=tests/earlier_runs/0.1/images.npz "
    "--config.log_every=3 --config.data_dir=/data",
    "npz-R14x0.5-full-s3-122cdd17",
  ),
]


def resolved(line):
  """Returns the resolved config of a command line."""
  values = flags.FlagValues()
  argv = ["train", *f"--config=configs/{line}".split()]
  return resolving.resolve(config_flags.parse(values, argv))[0]


@pytest.mark.parametrize(("line", "name"), NAMES, ids=[line for line, _ in NAMES])
def test_the_same_command_has_the_run_folder_that_version_0_1_gave_it(line, name, monkeypatch):
  monkeypatch.chdir(running.ROOT)
  assert run_config.default_workdir(resolved(line)) == f"runs/{name}"


@pytest.fixture
def earlier(tmp_path, monkeypatch):
  """A copy of what version 0.1 left, which is the current folder: `data_path` is relative to it."""
  folder = tmp_path / "0.1"
  shutil.copytree(RUNS / "0.1", folder)
  monkeypatch.chdir(folder)
  return folder


def config_of_the_runs(**changes):
  config = npz.get_config("model=R14x0.5,weights=none,seed=3,path=images.npz")
  config.update({**FIELDS, **changes})
  return config


def run(folder):
  return fine_tuning.train_and_evaluate(config_of_the_runs(), str(folder))


def test_a_finished_run_of_version_0_1_gives_its_result(earlier):
  before = {p: p.read_bytes() for p in (earlier / "finished").iterdir()}
  assert run(earlier / "finished") == json.loads(before[earlier / "finished" / "result.json"])
  after = {p: p.read_bytes() for p in (earlier / "finished").iterdir() if p.name != ".lock"}
  assert after == before


@pytest.mark.slow
def test_a_stopped_run_of_version_0_1_goes_on_and_ends_like_the_undisturbed_one(earlier, capsys):
  result = run(earlier / "stopped")
  assert "Resuming after step 21.\n" in capsys.readouterr().out
  undisturbed = json.loads((earlier / "finished" / "result.json").read_text())
  for name in ("top1", "num_train", "num_test", "steps", "left_out"):
    assert result[name] == undisturbed[name], name
  others = [w for w in result["warnings"] if " and resumed with jax" not in w]  # another version
  assert others == undisturbed["warnings"]
  assert result["loss"] == pytest.approx(undisturbed["loss"], rel=0.02)
  logged = [(r["step"], r["kind"]) for r in running.rows(earlier / "stopped")]
  undisturbed = [(r["step"], r["kind"]) for r in running.rows(earlier / "finished")]
  assert sorted(logged) == sorted(
    [*undisturbed, (21, "train")]
  )  # version 0.1 logged the step of the stop
  ours, theirs = running.arrays(earlier / "stopped"), running.arrays(earlier / "finished")
  assert ours.keys() == theirs.keys()
  for key, value in theirs.items():
    np.testing.assert_allclose(ours[key], value, rtol=0, atol=1e-4, err_msg=key)


def test_a_run_of_version_0_1_goes_on_in_its_order(earlier, capsys):
  def in_order(folder, window):
    config, opened = run_config.prepare(config_of_the_runs(shuffle_window=window))
    data = pipeline.load(opened, run_config.selection(config))
    fields = {"folder": folder, "is_first": True, "config": config, "data": data}
    return setup.in_recorded_order(setup.Run(**{**dict.fromkeys(RUN_FIELDS), **fields})).data

  data = in_order(earlier / "stopped", 5)
  assert data.train.window == 5
  (warning,) = data.warnings
  assert "permutes training examples in windows" in warning
  assert warning in capsys.readouterr().out
  assert in_order(earlier / "stopped", 65_536).warnings == []  # the same in both versions
  (earlier / "new").mkdir()
  run_folder.write_json(earlier / "new" / run_folder.ENVIRONMENT, {"order": 2})
  data = in_order(earlier / "new", 5)
  assert (data.train.window, data.warnings) == (None, [])


def test_runs_of_version_0_1_are_reported(earlier):
  found = collect.collect(earlier)
  assert [r.metrics["top1"] for r in found.runs] == [1.0]
  assert len(found.unfinished) == 1


@pytest.fixture
def later_fields(monkeypatch):
  """Three fields that `RunConfig` gains, of every kind of default."""
  later = [
    ("shuffle_blocks", int, 1_024),
    ("stages", tuple[int, ...], (1, 2)),
    ("teacher", str | None, None),
  ]
  kinds = dataclasses.make_dataclass(
    "Later", later, bases=(run_config.RunConfig,), frozen=True, kw_only=True
  )
  monkeypatch.setattr(run_config, "RunConfig", kinds)
  recipes._defaults.cache_clear()
  yield
  recipes._defaults.cache_clear()


@pytest.mark.usefixtures("later_fields")
def test_fields_that_come_later_leave_the_names(monkeypatch):
  monkeypatch.chdir(running.ROOT)
  names = {line: run_config.default_workdir(resolved(line)) for line, _ in NAMES}
  assert names == {line: f"runs/{name}" for line, name in NAMES}
  line, name = NAMES[0]
  for change in ("shuffle_blocks=7", "stages=(1,)", "teacher=R50x1"):
    assert run_config.default_workdir(resolved(f"{line} --config.{change}")) != f"runs/{name}"


@pytest.mark.usefixtures("later_fields")
def test_earlier_runs_are_found_and_resumed_where_later_fields_have_their_defaults(earlier):
  assert run(earlier / "finished")["top1"] == 1.0
  stopped = earlier / "stopped"
  config, _ = resolving.resolve(config_of_the_runs())
  run_folder.record_config(stopped, config.to_dict(), run_config.identity)
  config, _ = resolving.resolve(config_of_the_runs(shuffle_blocks=7))
  with pytest.raises(errors.UserError, match=r"\(shuffle_blocks: not set there, 7 now\)"):
    run_folder.record_config(stopped, config.to_dict(), run_config.identity)


@pytest.mark.usefixtures("later_fields")
def test_a_run_with_a_later_field_is_not_resumed_at_its_default(tmp_path):
  begun_with = {"model": "R14x0.5", "stages": (3,), "shuffle_blocks": 1_024}
  run_folder.record_config(tmp_path, begun_with, run_config.identity)
  run_folder.write_json(tmp_path / run_folder.ENVIRONMENT, {})
  run_folder.record_config(tmp_path, {"model": "R14x0.5", "stages": (3,)}, run_config.identity)
  now = {"model": "R14x0.5", "stages": (1, 2)}
  with pytest.raises(errors.UserError, match=r"\(stages: \[3\] there, \[1, 2\] now\)"):
    run_folder.record_config(tmp_path, now, run_config.identity)


@pytest.mark.usefixtures("later_fields")
def test_a_sweep_takes_the_config_of_an_earlier_run(earlier):
  path = earlier / "sweep.py"
  path.write_text("""
import json
import pathlib
from ml_collections import ConfigDict
from experiments.sweeping import grid
def get_runs():
  fields = json.loads(pathlib.Path("finished/config.json").read_text())
  yield grid.Run(ConfigDict({**fields, "decay_steps": tuple(fields["decay_steps"])}))
""")
  (planned,) = grid.load(str(path))
  assert planned.mistake is None
  assert planned.config.stages == (1, 2)
  fields = json.loads((earlier / "finished" / "config.json").read_text())
  assert planned.name.endswith(run_config.config_hash(ConfigDict(fields)))


def test_runs_of_two_versions_have_one_recipe(earlier, request):
  (before,) = collect.collect(earlier).runs
  request.getfixturevalue("later_fields")
  (without,) = collect.collect(earlier).runs
  path = earlier / "finished" / "config.json"
  fields = json.loads(path.read_text())
  later = {"shuffle_blocks": 1_024, "stages": [1, 2], "teacher": None}
  path.write_text(json.dumps({**fields, **later}))
  (with_defaults,) = collect.collect(earlier).runs
  for read in (without, with_defaults):
    assert (read.recipe, read.rule, read.config_hash) == (
      before.recipe,
      before.rule,
      before.config_hash,
    )
    assert read.config["shuffle_blocks"] == 1_024
  path.write_text(json.dumps({**fields, **later, "stages": [3]}))
  (other,) = collect.collect(earlier).runs
  assert ("stages", "3") in other.recipe.departures
