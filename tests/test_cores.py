"""Tests of bit_jax.cores."""

import os

import pytest

from bit_jax import cores


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="only Linux can bind a process")
def test_cores_that_this_process_may_not_use_do_not_count(printed_by):
  assert cores.usable() == len(os.sched_getaffinity(0))
  bound = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); "
  assert printed_by(f"{bound}from bit_jax import cores; print(cores.usable())") == "1\n"


def test_where_binding_is_unknown_all_cores_count(monkeypatch):
  monkeypatch.delattr(os, "sched_getaffinity", raising=False)
  monkeypatch.setattr(os, "cpu_count", lambda: 7)
  assert cores.usable() == 7
