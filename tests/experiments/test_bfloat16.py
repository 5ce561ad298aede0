"""Tests of experiments.bfloat16."""

import numpy as np
import pytest

from experiments import bfloat16, embed_checkpoint


@pytest.mark.parametrize("module", [bfloat16, embed_checkpoint])
def test_help_is_printed_instead_of_run(module, capsys):
  with pytest.raises(SystemExit) as ended:
    module.main([module.__name__, "--help"])
  assert ended.value.code == 0
  assert module.__doc__.split()[1] in capsys.readouterr().out


def test_deviation_counts_norms_and_predictions():
  exact = np.array([[3.0, 0.0], [0.0, 4.0]])
  other = np.array([[3.0, 0.5], [4.0, 4.0 - 0.5]])
  difference, equal = bfloat16.deviation(exact, other)
  assert difference == pytest.approx(np.sqrt(0.25 + 16 + 0.25) / 5)
  assert equal == 0.5


def test_the_table_has_a_row_for_each_seed():
  rows = bfloat16.format_table([(0, 0.834, 0.829, 0.0123, 0.995)]).splitlines()
  assert rows[-1] == "| 0 | 83.4 % | 82.9 % | 1.23 % | 99.5 % |"
