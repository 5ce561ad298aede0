"""What the processes of a run compare; `tests/commands/test_processes.py` has real ones."""

import jax
import pytest
from PIL import Image

from bit_jax import run_config
from bit_jax.configs import folder
from bit_jax.runtime import errors, files, processes
from bit_jax.training import agreement


def test_images_of_other_content_are_refused(tmp_path, monkeypatch):
  """Each process reads the images of its own disk, here of equal names and sizes."""

  def prepared():
    return run_config.prepare(folder.get_config(f"weights=none,path={tmp_path / 'set'}"))

  paths = [tmp_path / "set" / name / f"{i}.bmp" for name in "ab" for i in range(2)]
  for path in paths:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40, 30)).save(path)
  sent = []
  monkeypatch.setattr(agreement.jax, "process_count", lambda: 2)
  monkeypatch.setattr(agreement.processes, "gather", lambda own: sent.append(own) or [sent[0], own])
  agreement.require_same_run(*prepared())
  agreement.require_same_run(*prepared())
  Image.new("RGB", (40, 30), "red").save(paths[2])
  with pytest.raises(errors.UserError, match=r"differ: the content of the images is \w+ in proce"):
    agreement.require_same_run(*prepared())


def test_what_a_killed_process_left_to_be_seen_is_removed(tmp_path, monkeypatch):
  left = []

  def gather(value):
    left.append(len(list(tmp_path.iterdir())))
    files.remove_temporaries(tmp_path)  # as the next start does, if it were killed here
    left.append(len(list(tmp_path.iterdir())))
    return [value, None] if isinstance(value, str) else [[True, "here"]] * 2

  monkeypatch.setattr(jax, "process_count", lambda: 2)
  monkeypatch.setattr(agreement, "_VISIBLE", 0)
  monkeypatch.setattr(processes, "gather", gather)
  agreement.require_shared(tmp_path)
  assert left == [1, 0, 0, 0]
