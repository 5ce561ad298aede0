"""The fuzzer: no finding in the corpus and in some inputs, and what a finding is."""

import multiprocessing
import os
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bit_jax.runtime import errors
from bit_jax.weights import download
from experiments.reliability.fuzz import kinds, mutation, session, target, workers

# Inputs of each kind, by what one costs.
_COUNTS = {
  "npz": 400,
  "safetensors": 300,
  "arrays": 300,
  "images": 150,
  "arguments": 400,
  "csv": 300,
  "run_folders": 40,
  "tfrecords": 400,
  "downloads": 20,
}


@pytest.fixture(scope="module", params=kinds.NAMES)
def kind(request, tmp_path_factory):
  return request.param, kinds.load(request.param), tmp_path_factory.mktemp(request.param)


def assert_no_finding(made, data, folder):
  with session.timed():
    found = session.attempt(made, data, folder)
  assert not isinstance(found, session.Finding), found.text


def test_valid_inputs_are_accepted(kind):
  name, made, folder = kind
  accepted = [session.attempt(made, data, folder) for data in made.seeds]
  assert True in accepted, name


def test_what_was_found_once_is_fixed(kind):
  name, made, folder = kind
  with session.limited(made.memory):
    for data in target.kept(name):
      assert_no_finding(made, data, folder)


def test_there_is_no_finding(kind):
  name, made, folder = kind
  with session.limited(made.memory):
    for number in range(_COUNTS[name]):
      assert_no_finding(made, made.make(target.numbered(1, name, number)), folder)


@pytest.mark.parametrize("name", ["npz", "arguments", "csv", "tfrecords"])
def test_no_choice_leads_to_a_finding(name, tmp_path):
  made = kinds.load(name)

  @settings(max_examples=100, derandomize=True, database=None, deadline=None)
  @given(st.randoms(use_true_random=False))
  def check(rng):
    assert_no_finding(made, made.make(rng), tmp_path)

  check()


def test_an_input_is_made_again_by_its_number():
  made = kinds.load("npz")
  inputs = [made.make(target.numbered(3, "npz", n)) for n in range(20)]
  assert inputs == [made.make(target.numbered(3, "npz", n)) for n in range(20)]
  assert len(set(inputs)) > 15


def test_mutations_are_many_and_near():
  found = {mutation.mutated(random.Random(i), bytes(range(64)), [b"token"]) for i in range(200)}
  assert len(found) > 150
  assert any(b"token" in data for data in found)


def a_kind(check):
  return target.Target([b""], lambda rng: b"", check, memory=64 << 20)


def ending(check, tmp_path):
  with session.limited(64 << 20):
    return session.attempt(a_kind(check), b"data", tmp_path)


def fail(error):
  raise error


def test_values_and_errors_for_users_are_no_findings(tmp_path):
  assert ending(lambda *_: True, tmp_path) is True
  assert ending(lambda *_: fail(errors.UserError("no")), tmp_path) is False
  assert ending(lambda *_: fail(download.DownloadError("no")), tmp_path) is False


@pytest.mark.parametrize(
  ("check", "place"),
  [
    (lambda *_: {}["x"], "KeyError"),
    (lambda *_: fail(AssertionError("wrong value")), "AssertionError"),
    (lambda *_: fail(OSError("no number")), "OSError"),
    (lambda *_: fail(PermissionError(13, "Permission denied")), "PermissionError"),
    (lambda *_: fail(download.DownloadError("a\nb")), "unprintable: DownloadError"),
    (lambda *_: fail(download.DownloadError("\x1b[2J")), "unprintable: DownloadError"),
    (lambda *_: fail(download.DownloadError("\udcff")), "unprintable: DownloadError"),
    (lambda *_: fail(download.DownloadError("a" * 2001)), "too long: DownloadError"),
    (lambda *_: fail(errors.UserError("")), "empty: UserError"),
    (lambda *_: bytes(1 << 46), "MemoryError"),
  ],
)
def test_other_ends_are_findings(check, place, tmp_path):
  found = ending(check, tmp_path)
  assert isinstance(found, session.Finding)
  assert found.place.startswith(f"{place} in tests/experiments/reliability/test_fuzz.py:")
  assert found.data == b"data"


def test_an_endless_input_is_a_finding(tmp_path, monkeypatch):
  monkeypatch.setattr(session, "_SECONDS", 0.1)

  def endless(*_):
    while True:
      pass

  with session.timed():
    found = session.attempt(a_kind(endless), b"", tmp_path)
  assert found.place.startswith("TooLong in ")


def _die(at, sender):
  sender.send(True)
  at.value = 7
  sender.send(session.Finding("place", "text", b"data"))
  os._exit(3)


def test_the_death_of_a_process_is_a_finding():
  context = multiprocessing.get_context("spawn")
  at = context.Value("q", 5)
  receiver, sender = context.Pipe(duplex=False)
  process = context.Process(target=_die, args=(at, sender), daemon=True)
  process.start()
  sender.close()
  tally = workers.Tally()
  assert workers._follow(process, at, receiver, tally) == "died with status 3"
  assert (tally.accepted, tally.refused, tally.findings, at.value) == (1, 0, 1, 7)
  assert list(tally.distinct) == ["place"]


def test_the_corpus_is_small_and_of_known_kinds():
  files = [path for path in target.CORPUS.rglob("*") if path.is_file()]
  assert sum(path.stat().st_size for path in files) < 1 << 20
  assert {path.parent.name for path in files} <= set(kinds.NAMES)
  assert files
