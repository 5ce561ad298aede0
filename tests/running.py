"""What the tests of running share: the cheapest run there is, in this process or in another.

Compiling is most of such a run, so all share JAX's compilation cache for the time of a session.
"""

import contextlib
import json
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np

from bit_jax.configs import quickstart
from bit_jax.training import fine_tuning

ROOT = pathlib.Path(__file__).parent.parent
ARGUMENTS = "weights=none,shots=3,protocol=select"  # 30 images; 159 to evaluate, an odd number
FIELDS = {
  "batch_size": 16,
  "resize": 40,
  "crop": 32,
  "total_steps": 6,
  "log_every": 2,
  "eval_every": 3,
  "checkpoint_every": 3,
  "eval_batch_size": 50,
  "mixup_alpha": 0.5,
}


def config(arguments=ARGUMENTS, **changes):
  result = quickstart.get_config(arguments)
  result.update({**FIELDS, **changes})
  return result


def train(folder, arguments=ARGUMENTS, **changes):
  return fine_tuning.train_and_evaluate(config(arguments, **changes), str(folder))


def cache_folder(tmp_path_factory):
  return tmp_path_factory.getbasetemp() / "compiled"


@contextlib.contextmanager
def compilation_cache(tmp_path_factory):
  """Lets this process share the compilation cache."""
  earlier = jax.config.jax_compilation_cache_dir
  jax.config.update("jax_compilation_cache_dir", str(cache_folder(tmp_path_factory)))
  yield
  jax.config.update("jax_compilation_cache_dir", earlier)


def command(*flags, arguments=ARGUMENTS, **changes):
  """Returns the command line of the same run; `flags` come last."""
  fields = [f"--config.{k}={v}" for k, v in {**FIELDS, **changes}.items()]
  path = f"--config=configs/quickstart.py:{arguments}"
  return [sys.executable, "-m", "bit_jax.train", path, *fields, *flags]


def xla_flags(num_devices):
  """Returns XLA_FLAGS of a process with some CPU devices that compiles as this one does."""
  # Of a flag that is given twice, the last counts.
  return f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={num_devices}"


def start(line, tmp_path_factory, **environment):
  """Starts a command in the project's folder, with the shared compilation cache."""
  variables = {
    **os.environ,
    "JAX_COMPILATION_CACHE_DIR": str(cache_folder(tmp_path_factory)),
    "PYTHONUNBUFFERED": "1",
    **environment,
  }
  pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
  return subprocess.Popen(line, cwd=ROOT, env=variables, text=True, **pipes)


def finish(process, seconds=300):
  """Waits for a process and returns its exit status, output and error output."""
  try:
    out, err = process.communicate(timeout=seconds)
  except subprocess.TimeoutExpired:
    process.kill()
    raise
  return process.returncode, out, err


def rows(folder, kind=None):
  """Returns the rows of metrics.jsonl."""
  lines = (pathlib.Path(folder) / "metrics.jsonl").read_text().splitlines()
  return [r for r in map(json.loads, lines) if kind in (None, r["kind"])]


def arrays(folder):
  """Returns {key: array} of a run's model.npz."""
  with np.load(pathlib.Path(folder) / "model.npz") as file:
    return dict(file)


def scalars(folder, tag):
  """Returns [(step, value)] of a tag in the TensorBoard event files of a folder."""
  import tensorflow as tf

  found = []
  for path in sorted(folder.glob("events.out.tfevents.*")):
    for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
      event = tf.compat.v1.Event.FromString(record)
      found += [
        (event.step, float(tf.make_ndarray(v.tensor))) for v in event.summary.value if v.tag == tag
      ]
  return found
