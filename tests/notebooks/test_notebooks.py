"""The notebooks run from top to bottom, and are stored without outputs."""

import re
import shutil

import nbformat
import pytest
import running

FOLDER = running.ROOT / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
# Where the photographs are among the shared data; drawn stand-ins take their place without these.
PHOTOS = {"cats_vs_dogs": "cats_and_dogs", "flowers": "flowers", "quickstart": "flowers"}
# What the well-known tutorials call the parameters of BiT-HyperRule.
NAMES = (
  *("BATCH_SIZE", "CROP_TO", "DATASET_NUM_TRAIN_EXAMPLES", "NUM_CLASSES", "RESIZE_TO"),
  *("SCHEDULE_BOUNDARIES", "SCHEDULE_LENGTH"),
)


def read(path):
  return nbformat.read(path, as_version=4)


def code(path):
  return [cell for cell in read(path).cells if cell.cell_type == "code"]


def test_all_notebooks_are_known():
  assert {path.stem for path in NOTEBOOKS} == set(PHOTOS)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_is_stored_without_outputs(path):
  notebook = read(path)
  nbformat.validate(notebook)
  assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
  assert notebook.metadata == {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
  }
  for cell in notebook.cells:
    assert not cell.metadata
    if cell.cell_type == "code":
      assert cell.outputs == []
      assert cell.execution_count is None
  assert path.read_text() == nbformat.writes(notebook, indent=1) + "\n"


@pytest.mark.parametrize("name", ["cats_vs_dogs", "flowers"])
def test_the_parameters_of_the_tutorials_are_computed(name):
  text = "\n".join(cell.source for cell in code(FOLDER / f"{name}.ipynb"))
  for variable in NAMES:
    values = re.findall(rf"\b{variable}\b[\w, ]* = (.*)", text)
    assert values or re.search(rf"for .*\b{variable}\b.* in ", text), variable
    assert not any(re.match(r"\[?\d", value) for value in values), variable


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs(path, request, tmp_path, monkeypatch):
  from nbclient import NotebookClient

  notebook = read(path)
  try:
    photos = request.getfixturevalue("shared") / "data" / "folders" / PHOTOS[path.stem]
  except pytest.skip.Exception:
    photos = None
  if photos is not None and photos.is_dir():
    first = next(cell for cell in notebook.cells if cell.cell_type == "code")
    assert first.source.startswith("PHOTOS = None")
    first.source = first.source.replace("PHOTOS = None", f"PHOTOS = {str(photos)!r}", 1)
  shutil.copy(FOLDER / "stand_ins.py", tmp_path)
  monkeypatch.setenv("PYTHONPATH", str(running.ROOT))
  monkeypatch.setenv("XLA_FLAGS", running.xla_flags(1))  # one device, as users have it
  resources = {"metadata": {"path": str(tmp_path)}}
  NotebookClient(notebook, timeout=600, kernel_name="python3", resources=resources).execute()
  outputs = [o for c in notebook.cells if c.cell_type == "code" for o in c.outputs]
  pictures = [o for o in outputs if "image/png" in o.get("data", {})]
  assert len(pictures) >= 3
