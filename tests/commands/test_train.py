"""The command line: runs in processes of their own, which are interrupted, starved or many."""

import json
import re
import signal
import sys

import pytest
import running
from PIL import Image

from bit_jax import train
from bit_jax.runtime import devices, errors

pytestmark = pytest.mark.slow


def run(tmp_path_factory, *flags, **changes):
  return running.finish(running.start(running.command(*flags, **changes), tmp_path_factory))


def sentence(err):
  """Returns the only line of the program's own on stderr; libraries may have logged before."""
  assert "Traceback" not in err
  return err.splitlines()[-1]


def test_a_signal_stops_the_run_and_the_same_command_goes_on(tmp_path, tmp_path_factory):
  endless = {"total_steps": 100_000, "eval_every": 10**6, "checkpoint_every": 10**6}
  line = running.command("--workdir", str(tmp_path / "run"), **endless)
  process = running.start(line, tmp_path_factory)
  for text in process.stdout:
    if text.startswith("step      2/"):
      break
  process.send_signal(signal.SIGINT)
  status, out, err = running.finish(process)
  assert status == 130
  said = sentence(err)
  assert said.startswith("Stopped after step ")
  step = int(said.split()[3].removesuffix(";"))
  assert f"; saved up to step {step} of 100000. Run the same command again to resume. " in said
  assert step >= 2
  kept = [p.name for p in (tmp_path / "run" / "checkpoints").iterdir() if p.name.isdigit()]
  assert kept == [str(step)]
  assert not (tmp_path / "run" / "result.json").exists()

  process = running.start(line, tmp_path_factory)
  for text in process.stdout:
    out += text
    if text.startswith("step") and "loss" in text:
      break
  process.send_signal(signal.SIGTERM)
  assert running.finish(process)[0] == 128 + signal.SIGTERM
  assert f"Resuming after step {step}.\n" in out
  steps = [r["step"] for r in running.rows(tmp_path / "run")]
  assert steps == list(range(2, steps[-1] + 1, 2))  # each once; a stop adds none


HIDE = """
import runpy, sys
from importlib.machinery import PathFinder

class Others(PathFinder):
  @classmethod
  def find_spec(cls, name, path=None, target=None):
    hidden = name.partition(".")[0] in ("tensorflow", "tensorboard", "tensorflow_datasets")
    return None if hidden else PathFinder.find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = Others
sys.argv = ["train", *sys.argv[1:]]
runpy.run_module("bit_jax.train", run_name="__main__")
"""


def test_without_tensorflow_all_else_works(tmp_path, tmp_path_factory):
  arguments = running.command("--workdir", str(tmp_path))[3:]
  line = [sys.executable, "-c", HIDE, *arguments]
  status, out, err = running.finish(running.start(line, tmp_path_factory))
  assert (status, "Traceback" in err) == (0, False)
  said = [text for text in out.splitlines() if text.startswith("TensorBoard logging")]
  assert len(said) == 1
  assert "No module named 'tensorflow' (pip install 'bit_jax[tensorboard]')" in said[0]
  assert [r["step"] for r in running.rows(tmp_path, "train")] == [2, 4, 6]
  assert (tmp_path / "curves.png").exists()
  assert not list(tmp_path.glob("events.*"))
  result = json.loads((tmp_path / "result.json").read_text())
  assert f"Top-1 accuracy {result['top1']:.2%} on 159 images (95% interval " in out
  for name in ("model.npz", "curves.png", "augmented.png", "predictions.png", "metrics.jsonl"):
    assert f"\n  {name} " in out


IMPORTS = """
import sys
from bit_jax import train
train.main(["train", *sys.argv[1:]])
print("imported:", "tensorflow_datasets" in sys.modules)
"""


def test_digits_never_import_tfds_nor_tensorflow_before_the_first_step(tmp_path, tmp_path_factory):
  arguments = running.command("--workdir", str(tmp_path), total_steps=1)[3:]
  line = [sys.executable, "-c", IMPORTS, *arguments]
  # As in a notebook: Keras imports matplotlib, which would raise for want of that package.
  process = running.start(line, tmp_path_factory, MPLBACKEND="module://nowhere.backend_inline")
  status, out, _ = running.finish(process)
  assert "TensorBoard logging is disabled" not in out
  assert (status, out.splitlines()[-1]) == (0, "imported: False")
  assert out.index("\nstep 1/1  loss ") < out.index("\nImporting TensorFlow")


@pytest.mark.parametrize(
  ("flags", "said"),
  [
    (["--config.dataset=digit"], "Unknown data set 'digit'"),
    (["--config.batch_size=12"], "batch of 12 can't be distributed over 4 devices"),
    (["--workdir=README.md/sub"], "can't be written"),
  ],
)
def test_mistakes_end_in_one_sentence(tmp_path, tmp_path_factory, flags, said):
  status, _, err = run(tmp_path_factory, "--workdir", str(tmp_path), *flags)
  assert status == 2
  assert sentence(err).startswith("error: ")
  assert said in sentence(err)


def test_a_dry_run_prints_the_resolved_config_and_writes_nothing(tmp_path, capsys, monkeypatch):
  monkeypatch.chdir(running.ROOT)
  train.main(running.command("--workdir", str(tmp_path / "run"), "--dry_run")[2:])
  out = capsys.readouterr().out
  config = json.loads(out[out.index("\n{\n") :])
  assert config == {**config, "batch_size": 16, "decay_steps": [2, 4, 5], "base_lr": 0.003}
  assert "(4 on each of 4 devices)" in out
  assert not (tmp_path / "run").exists()


def test_a_dry_run_on_a_card_without_bfloat16_plans_for_float32(tmp_path, capsys, monkeypatch):
  monkeypatch.chdir(running.ROOT)

  def planned(capability, *flags):
    card = devices.Description("gpu", "Tesla T4", 16 * 2**30, 4, 4, capability)
    monkeypatch.setattr(devices, "describe", lambda: card)
    train.main(running.command("--workdir", str(tmp_path / "run"), *flags, "--dry_run")[2:])
    out = capsys.readouterr().out
    (memory,) = re.findall("^  memory  .*", out, re.MULTILINE)
    return memory, "dtype=auto computes in float32: Tesla T4, compute capability 7.5" in out

  narrow, _ = planned("8.0")
  wide, remark = planned("7.5")
  assert (wide, remark) == (planned("8.0", "--config.dtype=float32")[0], True)
  assert wide != narrow
  assert planned("7.5", "--config.dtype=bfloat16") == (narrow, False)
  assert planned("8.0") == (narrow, False)


def test_a_dry_run_says_how_images_are_read_and_what_may_be_wrong(tmp_path, capsys, monkeypatch):
  monkeypatch.chdir(running.ROOT)
  for name in ("cat", "dog", "dog/old"):
    (tmp_path / name).mkdir(parents=True)
    for i in range(2):
      Image.new("RGB", (8, 8)).save(tmp_path / name / f"{i}.png")
  config = f"--config=configs/folder.py:model=R14x0.5,path={tmp_path}"
  train.main(["train", config, "--config.keep_best=True", "--config.batch_size=8", "--dry_run"])
  rule, config = capsys.readouterr().out.split("\n{\n")
  pooled, chosen, origin = rule.splitlines()[-3:]
  assert pooled == "warning: Class dog combines 1 subfolder (old)."
  assert chosen.startswith("warning: keep_best or patience chooses on the images that are reported")
  assert origin.startswith("No train/test split found")
  assert json.loads("{" + config)["keep_best"] is True


def test_a_second_platform_that_is_not_there_stops_before_anything_asks_jax(
  tmp_path, capsys, monkeypatch
):
  def absent():
    raise errors.UserError("JAX_PLATFORMS=cpu,tpu can't be used here")

  monkeypatch.chdir(running.ROOT)
  monkeypatch.setattr(devices, "require", absent)
  with pytest.raises(errors.UserError, match="cpu,tpu"):
    train.main(running.command("--workdir", str(tmp_path / "run"), "--dry_run")[2:])
  assert capsys.readouterr().out == ""
