"""Damages checkpoints and fills disks; then checks that runs end as if undisturbed, or say why not.

    python -m experiments.reliability.faults --flips=40 --seed=0

Four parts, each by kind of fault:

- checkpoints: the newest checkpoint of a run of the smallest network is damaged (flipped bits,
  truncated and deleted files, checkpoints of other runs) and restored. It must give its own state,
  the one before with one line, or one sentence, and never another state.
- runs: a run goes on from such a folder. Its weights and metrics must be those of the undisturbed.
- limits, disks: a run with a limit on the size of files, or on a file system that is too small,
  must end with one sentence and exit status 2; the same command then ends like the undisturbed run.
  Mounting file systems needs root.

Counts go to `faults.jsonl`.
"""

import argparse
import collections
import contextlib
import dataclasses
import errno
import json
import os
import pathlib
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from unittest import mock

import jax
import numpy as np

from bit_jax import train, weights
from bit_jax.models import architectures
from bit_jax.runs import run_folder
from bit_jax.runtime import compile_cache, errors, exits
from bit_jax.training import optimizer, resuming, steps
from experiments.reliability import records, small_runs

RECORDS = pathlib.Path(__file__).with_name("faults.jsonl")
_ROOT = pathlib.Path(__file__).parents[2]
_MODEL, _CLASSES, _SIDE = "R14x0.5", 3, 40
_FIELDS: dict[str, Any] = {
  "batch_size": 8,
  "resize": 40,
  "crop": 32,
  "total_steps": 8,
  "log_every": 2,
  "eval_every": 3,
  "checkpoint_every": 3,
  "eval_batch_size": 12,
  "mixup_alpha": 0.2,
  "keep_best": True,
}
_SENTENCE = "error: "
_LARGE = 4  # times as many flips in the file of the arrays
_ROOM = "400m"  # of a file system that is large enough
# What a run may print to standard error besides its error.
_REMARKS = ("warning: ", "Compiled programs can't be stored in ")


@dataclasses.dataclass
class Counts:
  """How faults of a kind ended: without any effect, from the one before, refused, or wrong."""

  harmless: int = 0
  recovered: int = 0
  refused: int = 0
  lost: int = 0


class Tally:
  """Counts of faults by kind."""

  def __init__(self) -> None:
    self.kinds: dict[str, Counts] = collections.defaultdict(Counts)

  def add(self, kind: str, end: str, details: str = "") -> None:
    """Counts a fault; prints what went wrong."""
    counts = self.kinds[kind]
    setattr(counts, end, getattr(counts, end) + 1)
    if end == "lost":
      print(f"LOST ({kind}): {details}", flush=True)


def main(argv: Sequence[str]) -> int:
  """Injects faults, and appends their counts; returns 1 if any run was lost."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--flips", type=int, default=40, help="flipped bits in each file")
  parser.add_argument("--sizes", type=int, default=12, help="sizes of disks")
  parser.add_argument("--seed", type=int, default=0)
  parser.add_argument("--parts", default="checkpoints,runs,limits,disks")
  parser.add_argument("--records", type=pathlib.Path, default=RECORDS)
  arguments = parser.parse_args(argv[1:])
  compile_cache.keep()
  tally, random = Tally(), np.random.default_rng(arguments.seed)
  with tempfile.TemporaryDirectory() as folder:
    bench = Bench(pathlib.Path(folder))
    parts = arguments.parts.split(",")
    if "checkpoints" in parts:
      folder_of_two = bench.copy("damaged") / run_folder.CHECKPOINTS
      damage_checkpoints(Target(folder_of_two, bench.state()), tally, random, arguments.flips)
    if "runs" in parts:
      damage_runs(bench, tally, random)
    if "limits" in parts:
      limit_files(bench, tally)
    if "disks" in parts:
      fill_disks(bench, tally, arguments.sizes)
  print(table(tally))
  write(arguments.records, tally, arguments.seed)
  return int(any(counts.lost for counts in tally.kinds.values()))


class Bench:
  """An undisturbed run, and the same run before its last files are written.

  Attributes:
    folder: For everything temporary.
    whole: The folder of the undisturbed run.
    unfinished: The folder of a run that has taken all its steps, with its last two checkpoints.
  """

  def __init__(self, folder: pathlib.Path):
    """Makes both runs."""
    self.folder, self.whole, self.unfinished = folder, folder / "whole", folder / "unfinished"
    self._images = folder / "images.npz"
    _write_images(self._images)
    ended = self.train(self.whole)
    assert ended.status == 0, ended.text
    with _failing_export():
      ended = self.train(self.unfinished)
    assert ended.status == exits.USER_ERROR, ended.text

  def arguments(self, workdir: pathlib.Path) -> list[str]:
    """Returns the command line of the run, after the program's name."""
    config = f"configs/npz.py:model={_MODEL},weights=none,seed=3,path={self._images}"
    fields = [f"--config.{name}={value}" for name, value in _FIELDS.items()]
    return [f"--config={_ROOT}/{config}", f"--workdir={workdir}", *fields]

  def train(self, workdir: pathlib.Path) -> "Ended":
    """Runs the command in this process, where programs are compiled once."""
    with _captured() as output:
      status = exits.run(train.main, ["train", *self.arguments(workdir)], needs_reader=False)
    return Ended(status, *output)

  def state(self) -> steps.TrainState:
    """Returns a state of the run's network."""
    architecture, path = architectures.find(_MODEL), self.whole / run_folder.WEIGHTS
    loaded = weights.load(path, architecture, head="keep", num_classes=_CLASSES)
    return steps.create_state(loaded.params, optimizer.sgd(0.9))

  def copy(self, name: str, into: pathlib.Path | None = None) -> pathlib.Path:
    """Returns a fresh copy of the unfinished run."""
    copied = (into or self.folder) / name
    shutil.rmtree(copied, ignore_errors=True)
    return pathlib.Path(shutil.copytree(self.unfinished, copied))

  def differences(self, workdir: pathlib.Path) -> list[str]:
    """Returns in what a finished run differs from the undisturbed one."""
    files = ("model.npz", "per_class.csv", "confusion.csv", "mistakes.csv", "classes.txt")
    found = [name for name in files if _content(workdir / name) != _content(self.whole / name)]
    if small_runs.rows(workdir) != small_runs.rows(self.whole):
      found.append("metrics.jsonl")
    result, expected = run_folder.finished(workdir), run_folder.finished(self.whole)
    assert expected is not None
    names = ("loss", "top1", "best_step", "steps", "warnings")
    if result is None or any(result[n] != expected[n] for n in names):
      found.append("result.json")
    return found


@dataclasses.dataclass(frozen=True)
class Ended:
  """How a command ended: exit status, standard output, and standard error."""

  status: int
  out: str
  err: str

  @property
  def text(self) -> str:
    """All that it printed."""
    return self.out + self.err

  def is_one_sentence(self) -> bool:
    """Returns whether it was refused with one sentence, and nothing else on standard error."""
    lines = self.err.splitlines()
    sentences = [line for line in lines if line.startswith(_SENTENCE)]
    others = [line for line in lines if not line.startswith((_SENTENCE, *_REMARKS))]
    return self.status == exits.USER_ERROR and len(sentences) == 1 and not others

  def is_clean(self) -> bool:
    """Returns whether it succeeded, with warnings at most."""
    return self.status == 0 and all(s.startswith(_REMARKS) for s in self.err.splitlines())


def damage_checkpoints(
  target: "Target", tally: Tally, random: np.random.Generator, flips: int
) -> None:
  """Damages the newest of two checkpoints in many ways, and restores each time."""
  for path in target.files():
    name, size = str(path.relative_to(target.intact)), path.stat().st_size
    content = path.read_bytes()
    for position in random.integers(size, size=flips * (_LARGE if size > 1e6 else 1)):
      flipped = bytearray(content)
      flipped[position] ^= 1 << int(random.integers(8))
      target.check(tally, "a flipped bit", f"{name} at {position}", _writing(name, bytes(flipped)))
    for length in {0, size // 2, size - 1}:
      target.check(tally, "a cut file", f"{name} to {length}", _writing(name, content[:length]))
    target.check(tally, "a missing file", name, _removing(name))
  for name in ("state", "run", "state/d", "state/ocdbt.process_0"):
    target.check(tally, "a missing folder", name, _removing(name))
  for name, damage in _foreign(target).items():
    target.check(tally, "a foreign checkpoint", name, damage)
  target.check_older(tally, "only the one before damaged", "harmless")
  target.check_older(tally, "both damaged", "refused")


class Target:
  """The two checkpoints of a run: the newest is damaged and made anew.

  Attributes:
    like: A state of the run's network.
    run: What identifies the run in its checkpoints.
    intact: A copy of the newest checkpoint.
  """

  def __init__(self, folder: pathlib.Path, like: steps.TrainState):
    """Takes the folder of the checkpoints and a state of the network."""
    self._folder, self.like = folder, like
    self._before, self._newest = sorted(int(p.name) for p in folder.iterdir())
    self.intact = folder.parent / "intact"
    shutil.copytree(folder / str(self._newest), self.intact)
    self.run = json.loads((self.intact / "run" / "metadata").read_text())["run"]
    self._states = {self._newest: self._restore()[0]}
    shutil.move(folder / str(self._newest), folder.parent / "aside")
    self._states[self._before] = self._restore()[0]
    shutil.move(folder.parent / "aside", folder / str(self._newest))

  @property
  def path(self) -> pathlib.Path:
    """The newest checkpoint."""
    return self._folder / str(self._newest)

  def files(self) -> list[pathlib.Path]:
    """Returns the files of the intact copy."""
    return sorted(p for p in self.intact.rglob("*") if p.is_file())

  def _restore(self) -> tuple[Any, list[str]]:
    lines: list[str] = []
    with resuming.Checkpoints(self._folder, self.run) as checkpoints:
      found = checkpoints.restore(self.like, lines.append)
    assert found is not None
    return found[0], lines

  def check(
    self, tally: Tally, kind: str, details: str, damage: Callable[[pathlib.Path], object]
  ) -> None:
    """Damages the newest checkpoint, restores, counts how that ended, and repairs it."""
    damage(self.path)
    with _captured() as output:
      try:
        end = self._end(*self._restore())
      except Exception as e:
        end, details = "lost", f"{details}: {type(e).__name__}: {e}"
    if "".join(output):
      end, details = "lost", f"{details}: {''.join(output)[:2000]}"
    tally.add(kind, end, details)
    self.repair()

  def check_older(self, tally: Tally, kind: str, expected: str) -> None:
    """Damages the one before, and the newest if that must be refused; then as `check`."""
    older = self._folder / str(self._before)
    kept = shutil.copytree(older, self._folder.parent / "older")
    (older / "run" / "metadata").write_bytes(b"{}")
    if expected == "refused":
      (self.path / "run" / "metadata").write_bytes(b"{}")
    try:
      end = self._end(*self._restore())
    except errors.UserError as e:
      end = "refused" if "\n" not in str(e) else "lost"
    tally.add(kind, end if end == expected else "lost", end)
    self.repair()
    shutil.rmtree(older)
    shutil.move(kept, older)

  def _end(self, state: Any, lines: Sequence[str]) -> str:
    step = int(state.step)
    if not _equal(state, self._states.get(step)):
      return "lost"
    if step == self._newest:
      return "lost" if lines else "harmless"
    return "recovered" if len(lines) == 1 and "\n" not in lines[0] else "lost"

  def repair(self) -> None:
    """Puts the intact checkpoint back."""
    for path in (self.path, self.path.with_suffix(".unusable")):
      shutil.rmtree(path, ignore_errors=True)
    shutil.copytree(self.intact, self.path)


def _foreign(target: Target) -> dict[str, Callable[[pathlib.Path], object]]:
  """Returns {what: puts it in place of the newest checkpoint}."""

  def of_another_step(checkpoint: pathlib.Path) -> None:
    shutil.rmtree(checkpoint)
    (before,) = run_folder.checkpoint_steps(checkpoint.parent)
    shutil.copytree(checkpoint.with_name(str(before)), checkpoint)

  def saved(state: steps.TrainState, run: str) -> Callable[[pathlib.Path], None]:
    def put(checkpoint: pathlib.Path) -> None:
      shutil.rmtree(checkpoint)
      there = checkpoint.parents[1] / "foreign"
      shutil.rmtree(there, ignore_errors=True)
      there.mkdir()
      with resuming.Checkpoints(there, run) as checkpoints:
        checkpoints.restore(state, print)
        step = np.int32(checkpoint.name)
        checkpoints.save(state.replace(step=step), {"seconds": 1.0, "timed_steps": 1})
      shutil.move(there / checkpoint.name, checkpoint)

    return put

  def without_digests(checkpoint: pathlib.Path) -> None:
    text = json.dumps({"seconds": 1.0, "timed_steps": 7})
    (checkpoint / "run" / "metadata").write_text(text)

  small = steps.create_state({"a": np.ones((3, 4), np.float32)}, optimizer.sgd(0.9))
  return {
    "another step": of_another_step,
    "another network": saved(small, target.run),
    "another run": saved(target.like, "another"),
    "no digests": without_digests,
  }


def damage_runs(bench: Bench, tally: Tally, random: np.random.Generator) -> None:
  """Lets runs go on whose newest checkpoint is damaged; compares their ends."""
  kind = "a run with a damaged checkpoint"
  names = [str(p.relative_to(bench.unfinished)) for p in _files_of_newest(bench.unfinished)]
  for name in names:
    workdir = bench.copy("run")
    path = workdir / name
    content = bytearray(path.read_bytes())
    content[random.integers(len(content))] ^= 1 << int(random.integers(8))
    path.write_bytes(content)
    _count_run(bench, tally, kind, bench.train(workdir), workdir, name)
  for name in names:
    workdir = bench.copy("run")
    (workdir / name).unlink()
    _count_run(bench, tally, "a run without a file", bench.train(workdir), workdir, name)


def _count_run(
  bench: Bench, tally: Tally, kind: str, ended: Ended, workdir: pathlib.Path, details: str
) -> None:
  different = bench.differences(workdir) if ended.status == 0 else ["it did not end"]
  named = ended.out.count(" can't be used (")
  fine = ended.is_clean() and not different and named <= 1
  end = ("recovered" if named else "harmless") if fine else "lost"
  tally.add(kind, end, f"{details}: {different}: {ended.text}")


def limit_files(bench: Bench, tally: Tally) -> None:
  """Limits the size of files, which fails like a disk; needs no root."""
  model = (bench.whole / run_folder.WEIGHTS).stat().st_size
  for limit in (100, 3_000, 10_000, 50_000, 200_000, model // 2, model + 1000, 2 * model):
    workdir = bench.folder / "limited"
    shutil.rmtree(workdir, ignore_errors=True)
    with _file_limit(limit):
      ended = bench.train(workdir)
    _count_stopped(bench, tally, "a limit on files", ended, workdir, f"{limit} bytes")


def fill_disks(bench: Bench, tally: Tally, sizes: int) -> None:
  """Runs on file systems that are too small, from the start and from the last step on."""
  if os.geteuid() != 0:
    print("Disks are not filled: mounting file systems needs root.")
    return
  used = sum(p.stat().st_size for p in bench.unfinished.rglob("*") if p.is_file()) // 1024
  for size in (20, 60, 200, *np.linspace(1_000, 1.4 * used, sizes).astype(int).tolist()):
    with _disk(bench.folder / "disk", f"{size}k") as (disk, enlarge):
      ended = bench.train(disk / "run")
      enlarge()
      _count_stopped(bench, tally, "a full disk", ended, disk / "run", f"{size} kB")
  for free in (0, 40, 5_000, 8_300):
    with _disk(bench.folder / "disk", _ROOM) as (disk, enlarge):
      workdir = bench.copy("run", disk)
      _fill(disk, free)
      ended = bench.train(workdir)
      enlarge()
      _count_stopped(bench, tally, "a disk that is full at the end", ended, workdir, f"{free} kB")
  with _disk(bench.folder / "disk", _ROOM) as (disk, enlarge):
    workdir = bench.copy("run", disk)
    _mount("-o", "remount,ro", str(disk))
    ended = bench.train(workdir)
    _mount("-o", "remount,rw", str(disk))
    _count_stopped(bench, tally, "a read-only disk", ended, workdir, "")
  with _disk(bench.folder / "disk", "64k") as (disk, _):
    workdir = bench.folder / "cached"
    command = [sys.executable, "-m", "bit_jax.train", *bench.arguments(workdir)]
    variables = {**os.environ, "BIT_JAX_CACHE": str(disk)}
    done = subprocess.run(command, cwd=_ROOT, env=variables, capture_output=True, text=True)
    ended = Ended(done.returncode, done.stdout, done.stderr)
    different = bench.differences(workdir) if ended.is_clean() else ["it did not end"]
    tally.add("a full cache disk", "lost" if different else "harmless", f"{different} {ended.text}")


def _count_stopped(
  bench: Bench, tally: Tally, kind: str, ended: Ended, workdir: pathlib.Path, details: str
) -> None:
  """Counts how a run ended, and after it the same command without the fault."""
  again = bench.train(workdir)
  different = bench.differences(workdir) if again.is_clean() else ["it did not end"]
  leftovers = [p.name for p in (workdir / run_folder.CHECKPOINTS).iterdir() if "tmp" in p.name]
  fine = (ended.is_one_sentence() or ended.is_clean()) and not different and not leftovers
  print(f"  {kind}, {details}: {ended.err.strip()[:300] or 'it ended'}", flush=True)
  end = "lost"
  if fine:
    end = "refused" if ended.status else "harmless"
  tally.add(kind, end, f"{details}: {different} {leftovers}: {ended.text} {again.text}")


@contextlib.contextmanager
def _disk(path: pathlib.Path, size: str) -> Iterator[tuple[pathlib.Path, Callable[[], None]]]:
  """Yields a file system of a size, and a function that makes it large and removes the filling."""
  path.mkdir(exist_ok=True)
  _mount("-t", "tmpfs", "-o", f"size={size}", "none", str(path))

  def enlarge() -> None:
    _mount("-o", f"remount,size={_ROOM}", str(path))
    (path / "filling").unlink(missing_ok=True)

  try:
    yield path, enlarge
  finally:
    subprocess.run(["umount", "--lazy", str(path)], check=True)


def _mount(*arguments: str) -> None:
  subprocess.run(["mount", *arguments], check=True)


def _fill(disk: pathlib.Path, free: int) -> None:
  """Fills a file system but for some kilobytes."""
  room = shutil.disk_usage(disk).free - 1024 * free
  with (disk / "filling").open("wb") as file:
    os.posix_fallocate(file.fileno(), 0, room)


@contextlib.contextmanager
def _file_limit(limit: int) -> Iterator[None]:
  """Within this context, no file of this process grows beyond a number of bytes."""
  soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
  try:
    yield
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextlib.contextmanager
def _failing_export() -> Iterator[None]:
  """Within this context, a run's last weights can't be written."""
  save = weights.save

  def fail(path: pathlib.Path, *more: Any, **options: Any) -> None:
    if path.name == run_folder.WEIGHTS:
      raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
    save(path, *more, **options)

  with mock.patch.object(weights, "save", fail):
    yield


@contextlib.contextmanager
def _captured() -> Iterator[list[str]]:
  """Yields a list that holds, after this context, what was printed to both streams.

  Also what libraries and threads print. By pipes: a file has a size, which may be limited.
  """
  texts: list[str] = []
  with contextlib.ExitStack() as stack:
    for descriptor in (1, 2):
      stack.enter_context(_piped(descriptor, texts))
    yield texts
  texts.sort(key=lambda text: text[0])
  texts[:] = [text[1:] for text in texts]


@contextlib.contextmanager
def _piped(descriptor: int, texts: list[str]) -> Iterator[None]:
  """Sends a descriptor's output to a list, with the descriptor as the first letter."""
  for stream in (sys.stdout, sys.stderr):
    stream.flush()
  reading, writing = os.pipe()
  kept = os.dup(descriptor)
  os.dup2(writing, descriptor)
  os.close(writing)
  found: list[bytes] = []

  def read() -> None:
    while part := os.read(reading, 1 << 16):
      found.append(part)

  reader = threading.Thread(target=read)
  reader.start()
  try:
    yield
  finally:
    for stream in (sys.stdout, sys.stderr):
      stream.flush()
    os.dup2(kept, descriptor)
    os.close(kept)
    reader.join()
    os.close(reading)
    texts.append(f"{descriptor}{b''.join(found).decode(errors='replace')}")


def _writing(name: str, content: bytes) -> Callable[[pathlib.Path], object]:
  return lambda checkpoint: (checkpoint / name).write_bytes(content)


def _removing(name: str) -> Callable[[pathlib.Path], object]:
  def remove(checkpoint: pathlib.Path) -> None:
    path = checkpoint / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()

  return remove


def _files_of_newest(workdir: pathlib.Path) -> list[pathlib.Path]:
  folder = workdir / run_folder.CHECKPOINTS / str(run_folder.saved_step(workdir))
  return sorted(p for p in folder.rglob("*") if p.is_file())


def _equal(a: Any, b: Any) -> bool:
  pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
  return b is not None and all(np.asarray(x).tobytes() == np.asarray(y).tobytes() for x, y in pairs)


def _content(path: pathlib.Path) -> bytes | None:
  return path.read_bytes() if path.exists() else None


def _write_images(path: pathlib.Path) -> None:
  """Writes noise in three colours, one a class."""
  random = np.random.default_rng(0)
  arrays: dict[str, np.ndarray] = {}
  for part, count in (("train", 36), ("test", 12)):
    labels = np.arange(count) % _CLASSES
    images = random.integers(0, 128, (count, _SIDE, _SIDE, 3))
    images[np.arange(count), :, :, labels] += 60
    arrays |= {f"{part}_images": images.astype(np.uint8), f"{part}_labels": labels}
  np.savez(path, **arrays)  # type: ignore[arg-type]  # its stub takes any name for a flag


def table(tally: Tally) -> str:
  """Returns the counts as text, a line for each kind."""
  lines = [f"{'fault':<34}{'harmless':>9}{'recovered':>10}{'refused':>8}{'lost':>5}"]
  for kind, c in tally.kinds.items():
    lines.append(f"{kind:<34}{c.harmless:>9}{c.recovered:>10}{c.refused:>8}{c.lost:>5}")
  return "\n".join(lines)


def write(path: pathlib.Path, tally: Tally, seed: int) -> None:
  """Appends a line of JSON for each kind."""
  lines = []
  for kind, counts in tally.kinds.items():
    numbers = dataclasses.asdict(counts)
    lines.append({"kind": kind, "injected": sum(numbers.values()), **numbers, "seed": seed})
  records.append(path, *lines)


if __name__ == "__main__":
  sys.exit(main(sys.argv))
