"""`python -m experiments.report`: what it writes of folders of all kinds."""

import csv
import json
import math
import pathlib
import random
import re
import shutil

import pytest
import run_folders
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure

from bit_jax.data import vtab
from bit_jax.runtime import errors, exits
from experiments import reduced, report


def reported(root, out=None):
  report.main(["report", str(root), *([f"--out={out}"] if out else [])])
  return (out or root / "report").joinpath("report.md").read_text()


def section(text, title):
  """Returns what stands below a heading, down to the next of its level or above."""
  level, rest = re.search(rf"^(#+) {re.escape(title)}\n(.*)", text, re.M | re.S).groups()
  return re.split(rf"^#{{1,{len(level)}}} ", rest, flags=re.M)[0]


def few(arguments, **fields):
  return run_folders.reduced(f"model=R14x0.5,{arguments}", **fields)


@pytest.fixture
def runs(tmp_path):
  """A folder of runs of several kinds, and of what is none."""
  root = tmp_path / "runs"
  for shots, top1s in ((5, (0.35, 0.31, 0.3)), (10, (0.4,))):
    for seed, top1 in enumerate(top1s):
      run_folders.write(root / f"{shots}-{seed}", few(f"shots={shots},seed={seed}"), top1)
  run_folders.write(root / "full", few("seed=0"), 0.7)
  run_folders.write(root / "none", few("shots=5,weights=none"), 0.2)
  run_folders.write(root / "mixup", few("shots=10", mixup_alpha=0.1), 0.45)
  for seed in range(3):
    config = run_folders.reduced(f"model=R14x0.5,seed={seed}", "vtab/cifar100")
    run_folders.write(root / f"vtab-{seed}", config, 0.2 + seed / 100)
  for seed, top1 in enumerate((0.5, 0.55)):
    config = run_folders.config(f"model=BiT-M-R50x1,preset=readme_128,shots=1,seed={seed}")
    run_folders.write(root / f"bit-{seed}", config, top1, sha="f" * 64)
  run_folders.dump(root / "failed" / "error.json", {"kind": "UserError", "message": "No | such."})
  run_folders.dump(root / "begun" / "config.json", few("shots=5,seed=9").to_dict())
  run_folders.dump(root / "model" / "config.json", {"architectures": ["Bert"]})
  shutil.copytree(root / "5-0", root / "z-copy")
  return root


@pytest.fixture
def without_drawing(monkeypatch):
  """Figures are empty files, which takes no time."""
  monkeypatch.setattr(Figure, "savefig", lambda self, path, **_: path.write_bytes(b""))


def test_the_whole(runs, capsys, monkeypatch):
  monkeypatch.chdir(runs.parent)
  text = reported(pathlib.Path("runs"))
  said = capsys.readouterr().out
  assert said.startswith("12 finished runs, 2 failed or unfinished, 1 duplicate, 1 folder left out")
  assert (
    "12 finished runs; 1 failed, 1 unfinished, 1 duplicate, 1 left out, all listed below." in text
  )
  few_shot = section(text, "Accuracy against examples per class")
  assert (
    "| cifar10 | R14x0.5-CIFAR100 | 31.0 (30.0 to 35.0), 3 seeds | 40.0, 1 seed | 70.0," in few_shot
  )
  assert "| cifar10 | R14x0.5, random initialisation | 20.0, 1 seed |  |  |" in few_shot
  assert f"total_steps 0.2 of the rule's ({reduced.REASON})" in few_shot
  assert "6 runs on cpu (Linux x86_64, 2 cores), 2026-11-22, median 272 images/s." in few_shot
  line = (
    "| cifar10 | 1-shot | BiT-M-R50x1 | preset readme_128, as the rule | 52.5 (50.0 to 55.0), 2"
  )
  assert line in section(text, "Other runs")
  tasks = section(text, "VTAB-1k")
  assert "VTAB-1k, 1 of 19 tasks" in tasks
  assert "| 21.0 (1 of 7) | none (0 of 4) | none (0 of 8) | 21.0 (1 of 19) |" in tasks
  assert "A mean over fewer than all tasks is not a score" in tasks
  compared = section(text, "cifar10, 10-shot, R14x0.5-CIFAR100")
  assert "| mixup_alpha | top-1 | difference, same seeds |" in compared
  assert "| 0 | 40.0, 1 seed | reference |" in compared
  assert (
    "| 0.1 | 45.0, 1 seed | \\+5.00 |" in compared or "| 0.1 | 45.0, 1 seed | +5.00 |" in compared
  )
  published = section(text, "Comparison with published values")
  line = (
    "| cifar10 | 1-shot | BiT-M-R50x1, Jax | 54.1 (48.4 to 66.1) | 52.5 (50.0 to 55.0), 2 seeds"
  )
  assert f"{line} | within the published spread |" in published
  assert "No value was published for R14x0.5, random initialisation; R14x0.5-CIFAR100." in published
  assert "- failed: UserError: No | such." in section(text, "Failed")
  assert "- begun: stopped or still running, no step" in section(text, "Unfinished")
  assert "- z-copy: same settings and seed 0 as 5-0" in section(text, "Duplicates, counted once")
  assert "- model: config.json lacks dataset" in section(text, "Left out")
  seen = "R14x0.5-CIFAR100 was pre-trained on the same images and labels. (3 runs, the first"
  assert seen in section(text, "Warnings")
  assert str(runs.parent) not in text  # it is to be shared


@pytest.mark.parametrize(
  ("given", "named"),
  [
    ("one/runs", "one/runs"),
    ("./one/runs/", "./one/runs/"),
    (".", "."),
    ("one/my runs", "'one/my runs'"),
    ("{tmp_path}/one/runs", "{tmp_path}/one/runs"),
  ],
)
def test_the_command_in_a_report_makes_it_again(tmp_path, monkeypatch, given, named):
  for name in ("runs", "my runs"):
    run_folders.write(tmp_path / "one" / name / "a", run_folders.config("model=R14x0.5"), 0.7)
  monkeypatch.chdir(tmp_path)
  report.main(["report", given.format(tmp_path=tmp_path), "--out=out"])
  text = (tmp_path / "out" / "report.md").read_text()
  (command,) = re.findall(r"by python -m experiments\.report (.*); results\.csv", text)
  assert command == named.format(tmp_path=tmp_path)


def test_its_files(runs):
  text = reported(runs)
  out = runs / "report"
  pictures = re.findall(r"\]\(([^)]+\.png)\)", text)
  assert len(pictures) == 3
  assert {p.name for p in out.iterdir()} == {"report.md", "report.html", "results.csv", *pictures}
  page = (out / "report.html").read_text()
  assert page.count('src="data:image/png;base64,') == 3
  assert not re.search(r'(src|href)="(?!data:|#)', page)
  for words in re.findall(r"^\| cifar10 .*", text, re.M):
    assert all(f">{cell.strip()}<" in page for cell in words.split("|")[1:-1])
  with (out / "results.csv").open() as file:
    rows = list(csv.DictReader(file))
  assert sum(row["metric"] == "top1" for row in rows) == 12
  assert not any(row["run"] == "z-copy" for row in rows)


def test_it_is_the_same_again_where_its_own_files_are(runs):
  first = {p.name: p.read_bytes() for p in (reported(runs), *(runs / "report").iterdir())[1:]}
  reported(runs)
  assert first == {p.name: p.read_bytes() for p in (runs / "report").iterdir()}


def test_a_score_over_all_tasks_beside_one_over_some(tmp_path):
  for model, tasks in (("BiT-M-R50x1", vtab.TASKS), ("BiT-M-R101x1", vtab.TASKS[:5])):
    for task in tasks:
      config = run_folders.config(f"model={model}", f"vtab/{task}")
      run_folders.write(tmp_path / "runs" / f"{model}-{task}", config, 0.5, sha="a" * 64)
  text = reported(tmp_path / "runs", tmp_path / "out")
  assert "VTAB-1k, 5 to 19 of 19 tasks" in text
  assert "| BiT-M-R50x1 | 50.0 (7 of 7) | 50.0 (4 of 4) | 50.0 (8 of 8) | 50.0 (19 of 19) |" in text
  assert "| BiT-M-R101x1 | 50.0 (5 of 7) | none (0 of 4) | none (0 of 8) | 50.0 (5 of 19) |" in text
  sizes = section(text, "Accuracy against size and cost")
  assert sizes.startswith("\nNo two of R101x1, R50x1 were run on one data set")


def test_sizes(tmp_path):
  for model, seconds in (("BiT-M-R50x1", 10.0), ("BiT-M-R101x1", 1234.0)):
    config = run_folders.config(f"model={model},shots=5")
    result = {"seconds": seconds}
    run_folders.write(tmp_path / "runs" / model, config, 0.5, sha="a" * 64, result=result)
  text = section(reported(tmp_path / "runs"), "Accuracy against size and cost")
  assert "on cpu (Linux x86_64, 2 cores), in s |" in text
  assert "| R50x1 | 5-shot | 23.5 | 50.0, 1 seed | 10 |" in text
  assert "| R101x1 | 5-shot | 42.5 | 50.0, 1 seed | 1,234 |" in text


def test_runs_that_no_section_is_for(tmp_path):
  run_folders.write(tmp_path / "a", run_folders.config("model=R14x0.5"), 0.7)
  text = reported(tmp_path)
  assert "## Accuracy" not in text
  line = "| cifar10 | full | R14x0.5-CIFAR100 | preset code, as the rule | 70.0, 1 seed |"
  assert line in section(text, "Other runs")


def test_only_failed_runs(tmp_path):
  run_folders.dump(tmp_path / "a" / "error.json", {"kind": "UserError", "message": "Why."})
  text = reported(tmp_path)
  assert text.startswith("# Results\n\n0 finished runs; 1 failed, all listed below.")
  assert "published" not in text


@pytest.mark.parametrize(
  ("reason", "said"),
  [
    (reduced.REASON, f"{reduced.REASON})"),
    ("it takes minutes", "it takes minutes)"),
    ("", "preset code; batch_size 64, crop 48, resize 56, total_steps 0.2"),
  ],
)
def test_a_figure_says_what_it_is_in_place_of_the_rule(tmp_path, without_drawing, reason, said):
  for shots in (1, 5):
    run_folders.write(tmp_path / str(shots), few(f"shots={shots}", reason=reason), 0.5)
  start = "![Accuracy against examples per class, not by the rule itself ("
  assert f"{start}{said}" in reported(tmp_path)


def test_several_versions_of_a_set(tmp_path):
  for seed, version in enumerate(("cifar10 3.0.1", "cifar10 3.0.2")):
    config = run_folders.config(f"model=R14x0.5,seed={seed}")
    run_folders.write(tmp_path / version, config, 0.7, environment={"data": version})
  text = section(reported(tmp_path), "Several versions of a data set")
  assert text.strip() == "- cifar10: cifar10 3.0.1, cifar10 3.0.2"


def test_names_of_any_letters(tmp_path):
  config = run_folders.config("model=R14x0.5,shots=5", reason="weil <b>|</b> 权重 \udcff")
  root = tmp_path / "läufe\udcff"
  run_folders.write(root / "a|b \udcff", config, 0.7)
  run_folders.dump(root / "c" / "error.json", {"kind": 3, "message": ["<script>", "\ud800"]})
  text = reported(root)
  assert "<script>" not in text
  assert "<b>" not in (root / "report" / "report.html").read_text()


@pytest.mark.parametrize("file", ["config.json", "environment.json", "result.json", "sweep.json"])
@pytest.mark.parametrize("value", ["\ud800 \udcff", "$x_{", 10**25, math.nan, [[{}]], -1])
def test_whatever_stands_in_the_fields_of_a_run_there_is_a_report(
  tmp_path, without_drawing, file, value
):
  root = tmp_path / "runs"
  run_folders.write(root / "sound", few("shots=5"), 0.5)
  whole = run_folders.write(root / "whole", few("shots=10"), 0.5, sweep="mine")
  for field, old in json.loads((whole / file).read_text()).items():
    folder = shutil.copytree(whole, root / field)
    fields = json.loads((folder / file).read_text())
    run_folders.dump(folder / file, {**fields, field: value, "new": value})
    assert old is None or fields[field] == old
  text = reported(root)
  with (root / "report" / "results.csv").open(encoding="utf-8") as table:
    counted = {row["run"] for row in csv.DictReader(table)}
  assert "sound" in counted
  for folder in root.iterdir():
    assert folder.name in counted or folder.name in text


def test_runs_in_folders_whose_names_look_alike_are_all_shown(tmp_path, without_drawing):
  for shots in (1, 5):
    run_folders.write(tmp_path / "runs\udcff", few(f"shots={shots}"), 0.5)
    (tmp_path / "runs\udcff").rename(tmp_path / f"runs{chr(0xDCF0 + shots)}")
  run_folders.write(tmp_path / "runs\udcff", run_folders.config("model=R14x0.5"), 0.7)
  assert "| cifar10 | full |" in section(reported(tmp_path), "Other runs")


@pytest.mark.parametrize(
  ("arguments", "said"),
  [
    ([], "Give one folder of runs"),
    (["a", "b"], "Give one folder of runs"),
    (["nowhere"], "nowhere not found"),
    (["--ouch=x", "a"], "Unknown command line flag '--ouch=x'"),
    (["--ou=x", "a"], "Unknown command line flag '--ou=x'"),
  ],
)
def test_mistakes_end_in_a_sentence(tmp_path, monkeypatch, capsys, arguments, said):
  monkeypatch.chdir(tmp_path)
  assert exits.run(report.main, ["report", *arguments]) == exits.USER_ERROR
  error = capsys.readouterr().err
  assert said in error
  assert error.count("\n") == 1


def test_a_folder_without_runs(tmp_path):
  (tmp_path / "notes.txt").write_text("x")
  with pytest.raises(errors.UserError, match=r"holds no run of bit_jax.train: give another"):
    report.main(["report", str(tmp_path)])
  run_folders.dump(tmp_path / "a" / "config.json", "{")
  with pytest.raises(errors.UserError, match=r"no run of bit_jax.train \(a: config.json is dam"):
    report.main(["report", str(tmp_path)])
  assert not (tmp_path / "report").exists()


def test_an_output_that_cannot_be_written(runs, tmp_path):
  (tmp_path / "file").write_text("x")
  with pytest.raises(errors.UserError, match=r"can't be written to .*file"):
    reported(runs, tmp_path / "file")


def test_without_the_extra_it_says_what_is_missing(printed_by):
  code = """
import sys
sys.modules["pandas"] = None
from bit_jax.runtime import exits
from experiments import report
sys.stderr = sys.stdout
print(exits.run(report.main, ["report", "."]))
"""
  message, status = printed_by(code).splitlines()
  assert "pandas" in message
  assert "bit_jax[experiments]" in message
  assert int(status) == exits.USER_ERROR


def test_metrics_of_imbalanced_sets(tmp_path, without_drawing):
  rates = {"balanced_accuracy": 0.25, "macro_f1": 0.2}
  for shots, result in ((1, rates), (5, {})):
    run_folders.write(tmp_path / str(shots), few(f"shots={shots}"), 0.5, result=result)
  run_folders.write(tmp_path / "alone", run_folders.config("model=R14x0.5"), 0.7)
  text = reported(tmp_path)
  assert "| cifar10 | R14x0.5-CIFAR100 | balanced accuracy | 25.0, 1 seed | not available |" in text
  assert "| cifar10 | R14x0.5-CIFAR100 | macro F1 | 20.0, 1 seed | not available |" in text
  assert "| 70.0, 1 seed | not available | not available |" in section(text, "Other runs")
  assert "Not available" not in text
  assert "did not: balanced accuracy (1 of 3), macro F1 (1 of 3)." in text
  with (tmp_path / "report" / "results.csv").open() as file:
    rows = [row for row in csv.DictReader(file) if row["run"] == "1"]
  assert {row["metric"]: float(row["value"]) for row in rows} == {"top1": 0.5, "loss": 1.5, **rates}


def test_earlier_runs_have_not_recorded_them(tmp_path):
  run_folders.write(tmp_path / "a", run_folders.config("model=R14x0.5"), 0.7)
  text = reported(tmp_path)
  assert "Not available, as these runs did not record it: balanced accuracy, macro F1." in text


def test_help(capsys):
  with pytest.raises(SystemExit) as ended:
    report.main(["report", "--help"])
  assert ended.value.code == 0
  assert "--out=FOLDER" in capsys.readouterr().out


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(order=st.randoms(), foreign=st.lists(st.binary(max_size=40), max_size=3))
def test_names_of_folders_and_foreign_files_change_no_number(
  runs, tmp_path, without_drawing, order, foreign
):
  expected = _numbers(reported(runs, tmp_path / "out"))
  other = tmp_path / "other"
  shutil.rmtree(other, ignore_errors=True)
  folders = [p for p in runs.iterdir() if p.is_dir()]
  names = [f"{i:02}" for i in range(len(folders))]
  random.Random(order.random()).shuffle(names)
  for folder, name in zip(folders, names, strict=True):
    shutil.copytree(folder, other / name[0] / name)
  for number, content in enumerate(foreign):
    path = pathlib.Path(other, f"foreign{number}", ("config.json", "result.json", "x")[number])
    path.parent.mkdir()
    path.write_bytes(content)
  assert _numbers(reported(other, tmp_path / "out2")) == expected


def _numbers(text):
  """Returns the sections with numbers, which name no folder."""
  return re.split(r"^## (?=Accuracy)|^## Remarks", text, flags=re.M)[1:-1]
