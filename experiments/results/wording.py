"""The words for what runs are, where they were made, and what they found."""

from collections.abc import Iterable, Sequence

from bit_jax.runtime import phrases
from experiments.results import intervals, reading


def made(found: Sequence[reading.Run]) -> str:
  """Returns what was run, where, when and how, of runs of one recipe."""
  departing = "" if found[0].recipe.follows_rule else " That is not the rule itself."
  return f"{run_on(found)} Recipe: {recipe(found)}.{departing}"


def run_on(found: Sequence[reading.Run]) -> str:
  """Returns how many runs there are, and where and when they were made, as a sentence."""
  days = sorted({run.started[:10] for run in found if run.started})
  when = "at a time that isn't on record" if not days else days[0]
  if len(days) > 1:
    when = f"{days[0]} to {days[-1]}"
  return f"{phrases.counted(len(found), 'run')} on {places(found)}, {when}{_speed(found)}."


def _speed(found: Sequence[reading.Run]) -> str:
  """Returns the images a second, where that is one network's, at one size and in one place."""
  speeds = [r.images_per_second for r in found if r.images_per_second is not None]
  if not speeds or len({(r.architecture, r.place, r.config["crop"]) for r in found}) > 1:
    return ""
  return f", {intervals.summarize(speeds).median:,.0f} images/s in the median"


def places(found: Iterable[reading.Run]) -> str:
  """Returns what runs were made on."""
  return " and ".join(sorted({run.place for run in found}))


def recipe(found: Sequence[reading.Run]) -> str:
  """Returns what recipe runs have, and why it departs from the rule if it does."""
  own = found[0].recipe
  reasons = _reasons(found)
  return f"{own} ({'; '.join(reasons)})" if reasons and not own.follows_rule else str(own)


def title(what: str, found: Sequence[reading.Run]) -> str:
  """Returns a figure's title: by the rule, or by what else, and that in the runs' own words."""
  own = found[0].recipe
  if own.follows_rule:
    return f"{what}\nby the rule, preset {own.preset}"
  return f"{what}\nnot by the rule itself ({'; '.join(_reasons(found)) or own})"


def _reasons(found: Iterable[reading.Run]) -> list[str]:
  return sorted({run.reason for run in found if run.reason})


def described(title: str, *marks: str) -> str:
  """Returns a figure's title, and what its marks mean, as one line."""
  return "; ".join((title.replace("\n", ", "), *marks))


def summary(of: intervals.Summary) -> str:
  """Returns the median of seeds, with what there is of lowest, highest and interval."""
  seeds = phrases.counted(of.count, "seed")
  if of.count == 1:
    return f"{of.median:.1f}, {seeds}"
  narrower = of.interval is not None and of.interval != (of.low, of.high)
  sure = f", median in {span(of.interval)}" if of.interval and narrower else ""
  return f"{of.median:.1f} ({span((of.low, of.high))}), {seeds}{sure}"


def span(ends: tuple[float, float]) -> str:
  """Returns the lowest and the highest of several values."""
  return f"{ends[0]:.1f} to {ends[1]:.1f}"


def dataset(name: str, protocol: str) -> str:
  """Returns a data set's name, and the protocol where it isn't the usual one."""
  return name if protocol == "final" else f"{name} ({protocol})"


def shots(count: int | None) -> str:
  """Returns how many examples of each class there are; None: all."""
  return "full" if count is None else f"{count}-shot"
