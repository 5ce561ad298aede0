"""Tests of bit_jax.runtime.config_flags, through the command line of training."""

import os

import pytest
from absl import flags

from bit_jax import train
from bit_jax.configs import base
from bit_jax.runtime import config_flags, errors, exits

FOLDER = base.__file__.rpartition("/")[0]
CIFAR10 = f"--config={FOLDER}/cifar10.py"


def run(capsys, *argv):
  status = exits.run(train.main, ["train", *argv])
  out, err = capsys.readouterr()
  return status, out, err


@pytest.mark.parametrize(
  ("argv", "facts"),
  [
    ([], ["--config=configs/quickstart.py"]),
    (["--config=nowhere.py"], ["'nowhere.py' not found"]),
    (["--config", "nowhere.py"], ["'nowhere.py' not found"]),
    (["--config=nowhere.py:shots=5"], ["'nowhere.py' not found"]),
    ([f"--config={FOLDER}"], [f"{FOLDER!r} not found"]),
    ([f"--config={FOLDER}/base.py"], ["names no data set", "cifar10"]),
    ([CIFAR10, "--config.batchsize=3"], ["no field 'batchsize'", "did you mean batch_size?"]),
    ([CIFAR10, "--config.learning_rate=0.1"], ["no field 'learning_rate': did you mean base_lr?"]),
    ([CIFAR10, "--config.epochs=3"], ["no field 'epochs': did you mean total_steps?"]),
    ([CIFAR10, "--config.image_size=64"], ["did you mean resize and crop?"]),
    ([CIFAR10, "--shots=5"], ["use --config=FILE:shots=... or --config.shots=..."]),
    ([CIFAR10, "--lr=5"], ["Unknown flag --lr: use --config.base_lr=..."]),
    (
      [CIFAR10, "--imgsz=64"],
      ["Unknown flag --imgsz: use --config.resize=... and --config.crop=..."],
    ),
    ([CIFAR10, "--crop=False"], ["Unknown flag --crop: use --config=FILE:crop=...\n"]),
    ([CIFAR10, "--batch_size", "5"], ["Unknown flag --batch_size: use --config.batch_size=..."]),
    (["--path=x"], ["Unknown flag --path: use --config=FILE:path=...\n"]),
    ([f"{CIFAR10}:model=bit-m-r50x1"], ["'bit-m-r50x1' (did you mean BiT-M-R50x1?)"]),
    ([f"{CIFAR10}:model=r50x1"], ["'r50x1' (did you mean R50x1?)"]),
    ([f"{CIFAR10}:model=R14x05"], ["(did you mean R14x0.5?)"]),
    (["--config=configs/foldr.py:path=x"], ["did you mean configs/folder.py?"]),
    (["--config=configs/folder:path=x"], ["did you mean configs/folder.py?"]),
    (["--config=configs/nope.py"], ["'configs/nope.py' not found", "--config=configs/cifar10.py"]),
    (["--config=cifar10"], ["did you mean configs/cifar10.py?"]),
    (
      [CIFAR10, "/"],
      ["'/'", "to train on your own images, use --config=configs/folder.py:path=/."],
    ),
    (["--config=/"], ["'/' is not a config file", "--config=configs/folder.py:path=/."]),
    ([CIFAR10, "--config.zzz=3"], ["no field 'zzz'", "total_steps"]),
    ([CIFAR10, "--config.batch_size=abc"], ["batch_size", "abc"]),
    ([CIFAR10, "--config.batch_size=1.5"], ["batch_size", "1.5"]),
    ([CIFAR10, "--config.base_lr=fast"], ["base_lr", "fast"]),
    ([CIFAR10, "--config.random_flip=maybe"], ["random_flip takes true or false, not 'maybe'"]),
    ([CIFAR10, "--config.crop=False"], ["crop takes a whole number, not 'False'"]),
    ([CIFAR10, "--config.decay_steps=(1,"], ["decay_steps"]),
    ([CIFAR10, "--bogus"], ["Unknown flag --bogus.\n"]),
    ([CIFAR10, "--wordir=x"], ["Unknown flag --wordir: did you mean --workdir?"]),
    ([CIFAR10, "configs/cifar10.py:shots=5"], ["--config=configs/cifar10.py:shots=5?"]),
    ([f"{CIFAR10}:seed=1", "shots=5"], ["'shots=5'", "joined by commas"]),
    ([f"{CIFAR10}:batch_size=64"], ["'batch_size': use --config.batch_size=VALUE"]),
    ([f"{CIFAR10}:crop=48"], ["crop=48", "true or false; the size in pixels is", "--config.crop"]),
    ([CIFAR10, "--bogus=3"], ["bogus"]),
    ([CIFAR10, "--dry_run=perhaps"], ["dry_run", "perhaps"]),
    ([CIFAR10, "--workdir", "--dry_run"], ["--workdir needs a folder, not '--dry_run'"]),
    ([CIFAR10, "--flagfile=nowhere"], ["Unable to open flagfile", "nowhere"]),
    ([CIFAR10, "stray"], ["'stray'", "`--`"]),
    ([f"{CIFAR10}:shotz=5"], ["Unknown config argument 'shotz'", "did you mean shots?"]),
    ([f"{CIFAR10}:shots=0"], ["shots=0 can't be used", "at least 1"]),
    ([f"{CIFAR10}:shots=five"], ["shots=five can't be used", "whole number"]),
    ([f"{CIFAR10}:preset=blog"], ["preset=blog", "code, paper, readme_128, scaled"]),
    ([f"{CIFAR10}:model=BiT-L-R50x1"], ["BiT-L-R50x1 was never released"]),
    ([f"{CIFAR10}:model=R50x7"], ["Unknown model 'R50x7'", "BiT-M-R50x1"]),
    ([CIFAR10, "--config.model=BiT-L-R152x4"], ["BiT-L-R152x4 was never released"]),
    ([CIFAR10, "--config.shots=0"], ["shots must be at least 1, not 0"]),
    ([CIFAR10, "--config.preset=blog"], ["preset='blog'", "readme_128"]),
    ([CIFAR10, "--config.protocol=test"], ["protocol='test'", "final, select"]),
    ([CIFAR10, "--config.dataset=mnist"], ["Unknown data set 'mnist'", "cifar100"]),
    ([CIFAR10, "--config.crop=500", "--config.resize=160"], ["crop=500", "resize=160"]),
    ([f"--config={FOLDER}/npz.py"], ["path"]),
    ([f"--config={FOLDER}/npz.py:path=nowhere.npz"], ["nowhere.npz"]),
  ],
)
def test_a_mistake_ends_in_a_sentence(capsys, argv, facts):
  status, out, err = run(capsys, *argv)
  assert status == 2
  assert out == ""
  assert err.startswith("error: ")
  assert err.count("\n") == 1
  assert len(err) < 900
  assert "Traceback" not in err
  assert all(fact in err for fact in facts)


NO_FUNCTION = "has no function get_config()"


@pytest.mark.parametrize(
  ("text", "arguments", "fact"),
  [
    ("", "", NO_FUNCTION),
    ("", ":shots=5", NO_FUNCTION),
    ("batch_size: 3", "", NO_FUNCTION),  # YAML that is Python as well
    ("get_config = 3", "", "config.py fails: TypeError: 'int' object is not callable"),
    ("- a\n- b:\n  c", "", "config.py fails in line 2: SyntaxError: invalid syntax"),
    ("def get_config(:", "", "config.py fails in line 1: SyntaxError: invalid syntax"),
    ("\0", "", "Error: source code string cannot contain null bytes"),
    ("import nosuch", "", "fails in line 1: ModuleNotFoundError: No module named 'nosuch'"),
    ("\nraise RuntimeError('x\\ny')", "", "config.py fails in line 2: RuntimeError: x."),
    ("import sys\nsys.exit(0)", "", "config.py fails in line 2: SystemExit: 0."),
    ("def get_config(): pass", "", "config.py returns a NoneType, and must return a ConfigDict"),
    ("def get_config(): return {}", "", "config.py returns a dict, and must return a ConfigDict"),
    (
      "import ml_collections\ndef get_config(): return ml_collections.FrozenConfigDict()",
      "",
      "config.py returns a FrozenConfigDict, and must return a ConfigDict",
    ),
    ("def get_config(): return 1 / 0", "", "config.py fails in line 1: ZeroDivisionError: "),
    (
      "def get_config(): open('/no/x')",
      "",
      "fails in line 1: FileNotFoundError: [Errno 2] No such",
    ),
    (
      "def get_config(): pass",
      ":shots=5",
      "can't be called with arguments after a colon: remove ':shots=5'",
    ),
    (
      "from bit_jax import arguments",
      "",
      "Import paths changed in version 0.2.0; see CHANGELOG.md.",
    ),
    ("def get_config(a): pass", "", "get_config() missing 1 required positional argument: 'a'"),
    (
      "from ml_collections import ConfigDict as C\ndef get_config(): return C({'seed': 3})",
      "",
      "The config has no base_lr, batch_size, checkpoint_every, crop, data_dir and 37 more",
    ),
    (
      "from configs import base\ndef get_config():\n  c = base.get_config()\n  c.batchsize = 3",
      "",
      "fails in line 4: AttributeError: the config has no field 'batchsize' (did you mean 'batch_s",
    ),
    (
      "from configs import base\ndef get_config():\n  c = base.get_config()\n  c.crop = 2.5",
      "",
      "config.py fails in line 4: TypeError: Could not override field 'crop'",
    ),
  ],
)
def test_what_is_wrong_with_a_config_file_is_told_with_its_line(
  tmp_path, capsys, text, arguments, fact
):
  path = tmp_path / "config.py"
  path.write_text(text)
  status, out, err = run(capsys, f"--config={path}{arguments}", "--config.seed=1")
  assert (status, out, err.count("\n")) == (2, "", 1)
  assert err.startswith("error: ")
  assert str(path) in err or "The config has no" in err
  assert fact in err


def test_a_dry_run_refuses_what_a_run_would(capsys):
  status, out, err = run(capsys, f"{CIFAR10}:shots=5", "--config.microbatch=3", "--dry_run")
  assert (status, '"total_steps"' in out) == (2, False)
  assert all(fact in err for fact in ("microbatch=3", "128"))


def test_a_dry_run_prints_the_rule(capsys):
  status, out, err = run(capsys, f"{CIFAR10}:shots=5", "--config.batch_size=64", "--dry_run")
  assert (status, err) == (0, "")
  words = " ".join(out.split())
  for fact in (
    "cifar10: BiT-M-R50x1",
    "examples 50 ",
    "160 -> 128",
    "64 (16 on each of 4 devices)",
    "memory 0.188 GB for weights and momentum, at most ",
  ):
    assert fact in words
  assert '"total_steps": 500' in out


def test_a_deterministic_run_sets_the_option_of_xla_itself(capsys, monkeypatch):
  monkeypatch.setenv("XLA_FLAGS", flags := os.environ.get("XLA_FLAGS", ""))
  assert run(capsys, CIFAR10, "--dry_run")[0] == 0
  assert os.environ["XLA_FLAGS"] == flags
  assert run(capsys, CIFAR10, "--config.deterministic=True", "--dry_run")[0] == 0
  assert os.environ["XLA_FLAGS"] == f"{flags} --xla_gpu_deterministic_ops=true".strip()


@pytest.mark.parametrize("flag", ["--help", "-h", "--helpfull"])
def test_help(capsys, flag):
  status, out, err = run(capsys, flag)
  assert (status, err) == (0, "")
  assert "--config=FILE" in out


@pytest.mark.parametrize("field", ["dataset.x", "seed[0]", "decay_steps.x"])
def test_part_of_a_field_can_not_be_set(field):
  argv = ["train", CIFAR10, f"--config.{field}=1"]
  plain = field.split("[")[0].split(".")[0]
  with pytest.raises(errors.UserError, match=rf"set a whole field, as in --config\.{plain}=VALUE"):
    config_flags.parse(flags.FlagValues(), argv)


def test_an_endless_name_of_a_flag_is_cut(capsys):
  status, _, err = run(capsys, CIFAR10, "--" + "a" * 5000)
  assert (status, err) == (2, f"error: Unknown flag --{'a' * 100}...: no flag is so long.\n")


@pytest.mark.parametrize("text", ["~\0", "~a\0b.csv", "\0"])
def test_a_null_character_is_no_path_of_data(text):
  with pytest.raises(errors.UserError, match=r"^Unexpected argument "):
    config_flags.parse(flags.FlagValues(), ["train", text])


def test_a_number_beyond_floats_is_of_another_type():
  with pytest.raises(errors.UserError, match=r"^The field max_aspect takes a number, not 1000"):
    config_flags.override(base.get_config(), {"max_aspect": 10**400})


def test_an_argument_that_no_file_can_be_called():
  with pytest.raises(errors.UserError, match=r"^Unexpected argument 'aaa.* flags start with `--`"):
    config_flags.parse(flags.FlagValues(), ["train", "--config=configs/quickstart.py", "a" * 5000])
