"""Runs that go on from damaged checkpoints, or on disks that are too small."""

import contextlib
import os
import pathlib
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator

import numpy as np

from bit_jax.runs import run_folder
from experiments.reliability.faults.bench import ROOT, Bench, Ended
from experiments.reliability.faults.tally import Tally

_ROOM = "400m"  # of a file system that is large enough


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
    done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True)
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


def _files_of_newest(workdir: pathlib.Path) -> list[pathlib.Path]:
  folder = workdir / run_folder.CHECKPOINTS / str(run_folder.saved_step(workdir))
  return sorted(p for p in folder.rglob("*") if p.is_file())
