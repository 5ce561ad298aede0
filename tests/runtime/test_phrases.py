"""Tests of bit_jax.runtime.phrases."""

import pytest

from bit_jax.runtime import phrases


@pytest.mark.parametrize(
  ("count", "expected"), [(0, "0 runs"), (1, "1 run"), (2, "2 runs"), (1234, "1,234 runs")]
)
def test_plurals_end_in_s(count, expected):
  assert phrases.counted(count, "run") == expected


def test_a_plural_may_be_given():
  assert phrases.counted(2, "class", "classes") == "2 classes"


@pytest.mark.parametrize(
  ("size", "expected"),
  [
    (0, "0 bytes"),
    (1, "1 byte"),
    (999, "999 bytes"),
    (1000, "1.0 kB"),
    (99_949, "99.9 kB"),
    (999_949, "999.9 kB"),
    (999_951, "1.0 MB"),
    (94_500_000, "94.5 MB"),
    (999_960_000, "1.0 GB"),
    (3_790_000_000, "3.8 GB"),
    (1_234_567_000_000, "1,234.6 GB"),
  ],
)
def test_sizes_of_files(size, expected):
  assert phrases.file_size(size) == expected


def test_names_are_cut_after_five():
  assert phrases.some(list("abcde")) == "a, b, c, d, e"
  assert phrases.some(list("abcdefg")) == "a, b, c, d, e and 2 more"
