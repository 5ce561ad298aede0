"""How runs and numbers are worded."""

import pytest
import run_folders

from experiments import reduced
from experiments.results import intervals, wording


@pytest.mark.parametrize(
  ("values", "said"),
  [
    ([50.0], "50.0, 1 seed"),
    ([50.0, 52.0], "51.0 (50.0 to 52.0), 2 seeds"),
    ([50.0] * 20 + [10.0], "50.0 (10.0 to 50.0), 21 seeds, median in 50.0 to 50.0"),
    ([50.0] * 6, "50.0 (50.0 to 50.0), 6 seeds"),
  ],
)
def test_summaries(values, said):
  assert wording.summary(intervals.summarize(values)) == said


@pytest.mark.parametrize(
  ("reason", "said"),
  [
    (reduced.REASON, reduced.REASON),
    ("it takes minutes", "it takes minutes)"),
    ("", "preset code; batch_size 64, crop 48, resize 56, total_steps 0.2"),
  ],
)
def test_a_title_says_what_it_is_in_place_of_the_rule(tmp_path, reason, said):
  found = run_folders.written(tmp_path, (run_folders.reduced(reason=reason), 0.5))
  assert wording.title("What", found).startswith(f"What\nnot by the rule itself ({said}")
  assert wording.made(found).endswith("That is not the rule itself.")


def test_a_title_by_the_rule_gives_no_reason(tmp_path):
  found = run_folders.written(tmp_path, (run_folders.config(reason="I like it"), 0.5))
  assert wording.title("What", found) == "What\nby the rule, preset code"
  assert wording.made(found) == (
    "1 run on cpu (Linux x86_64, 2 cores), 2026-11-22, 272 images/s in the median. "
    "Recipe: preset code, as the rule."
  )


def test_runs_of_two_places_have_no_speed_in_common(tmp_path):
  machines = ("Linux x86_64, 1 core", "Linux x86_64, 2 cores")
  found = run_folders.written(
    tmp_path,
    *(
      (run_folders.config(f"model=R14x0.5,seed={seed}"), 0.5, {"environment": environment})
      for seed, machine in enumerate(machines)
      for environment in [{"machine": machine, "started": f"2026-11-2{seed}T00:00:00+00:00"}]
    ),
  )
  assert wording.run_on(found) == (
    "2 runs on cpu (Linux x86_64, 1 core) and cpu (Linux x86_64, 2 cores), "
    "2026-11-20 to 2026-11-21."
  )


def test_names_of_data_and_examples():
  assert wording.dataset("cifar10", "final") == "cifar10"
  assert wording.dataset("cifar10", "select") == "cifar10 (select)"
  assert (wording.shots(5), wording.shots(None)) == ("5-shot", "full")
