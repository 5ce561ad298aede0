"""The section that sets published values beside ours."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

from bit_jax.runtime import phrases
from experiments.results import pages, reading, verdicts, vtab_means, wording


def against_published(
  found: Sequence[reading.Run], scores: Sequence[vtab_means.Score]
) -> Iterator[pages.Block]:
  """Yields a table for each source of what it published and what the runs found."""
  if not found:
    return
  yield pages.Heading(2, "Against published values")
  compared = verdicts.compare(verdicts.read(), found, scores)
  if missing := verdicts.unmatched(found, compared):
    yield pages.Paragraph(f"Nothing to compare with was published for {'; '.join(missing)}.")
  if not compared:
    return
  yield pages.Paragraph(
    "Only what is like with like gets a verdict. Released checkpoints are known by their names; no "
    "hash of them was published that this could check, and results.csv has those of the files used."
  )
  if any("CIFAR" in c.row.source and c.row.shots is None for c in compared):
    yield pages.Paragraph(
      "On the full CIFAR sets the README's runs trained on 49,000 of the 50,000 images; those in "
      "JAX scored 9,984 of the 10,000 test images."
    )
  by_source: dict[str, list[verdicts.Comparison]] = defaultdict(list)
  for one in compared:
    by_source[f"{one.row.source}; {one.row.citation}"].append(one)
  notes: dict[tuple[str, ...], int] = {}
  header = ("data set", "examples", "network", "published", "ours", "verdict")
  for source, there in by_source.items():
    metrics = dict.fromkeys(one.row.description for one in there)
    yield pages.Paragraph(f"Source: {source}; {'; '.join(metrics)}.")
    rows = []
    for one in there:
      number = notes.setdefault(one.differences, len(notes) + 1) if one.differences else 0
      verdict = one.verdict or f"none, not like with like: note {number}"
      rows.append((*_names(one.row), _theirs(one.row), _ours(one), verdict))
    yield pages.Table(header, rows, names=len(header))
  if notes:
    yield pages.Bullets([f"Note {n}: {'; '.join(reasons)}." for reasons, n in notes.items()])


def _names(row: verdicts.Row) -> tuple[str, str, str]:
  metric = "" if row.metric == "top1" else f", {row.metric}"
  examples = "1000" if row.vtab_group else wording.shots(row.shots)
  return f"{row.dataset}{metric}", examples, row.model.replace(" [", ", ").rstrip("]")


def _theirs(row: verdicts.Row) -> str:
  return row.text if row.spread is None else f"{row.text} ({row.spread[0]:g} to {row.spread[1]:g})"


def _ours(one: verdicts.Comparison) -> str:
  if one.spread is None:
    return f"{one.ours:.1f}"
  seeds = phrases.counted(one.count, "seed")
  if one.count == 1:
    return f"{one.ours:.1f}, {seeds}"
  return f"{one.ours:.1f} ({wording.span(one.spread)}), {seeds}"
