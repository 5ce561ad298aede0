"""The section that sets published values beside ours."""

import run_folders

from experiments.results import pages, verdict_tables, vtab_means


def blocks(folder, *runs):
  found = run_folders.written(folder, *runs)
  return list(verdict_tables.against_published(found, vtab_means.scores(found)))


def released(arguments, top1):
  return run_folders.config(f"model=BiT-M-R50x1,{arguments}"), top1, {"sha": "f" * 64}


def test_a_verdict_or_a_note_on_why_there_is_none(tmp_path):
  like = [released(f"preset=readme_128,shots=1,seed={s}", t) for s, t in enumerate((0.5, 0.55))]
  shown = blocks(tmp_path, *like, released("preset=code,shots=5", 0.8))
  rows = [row for table in shown if isinstance(table, pages.Table) for row in table.rows]
  ours = [(row[1], row[2], *row[3:]) for row in rows if row[2] == "BiT-M-R50x1, Jax"]
  assert ours == [
    (
      "1-shot",
      "BiT-M-R50x1, Jax",
      "54.1 (48.4 to 66.1)",
      "52.5 (50.0 to 55.0), 2 seeds",
      "within the published spread",
    ),
    (
      "5-shot",
      "BiT-M-R50x1, Jax",
      "82.4 (76.7 to 85.4)",
      "80.0, 1 seed",
      "none, not like with like: note 1",
    ),
  ]
  (notes,) = [block.items for block in shown if isinstance(block, pages.Bullets)]
  assert notes == ["Note 1: preset code, theirs readme_128."]


def test_what_nothing_was_published_of_is_named(tmp_path):
  shown = blocks(tmp_path, (run_folders.config("model=R14x0.5"), 0.5))
  assert shown[1:] == [
    pages.Paragraph("Nothing to compare with was published for R14x0.5-CIFAR100.")
  ]


def test_without_runs_there_is_no_section(tmp_path):
  assert blocks(tmp_path) == []
