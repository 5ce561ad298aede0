"""Features are those of the network, and the same after any interruption."""

import contextlib
import json

import numpy as np
import pytest
import synthetic
from numbered import Numbered

from bit_jax.inference import embedding, networks, outputs
from bit_jax.models import resnet_v2
from bit_jax.runtime import errors

SIZE, N, BATCH = 16, 22, 8
BAD = (0, 9, 10, 21)


@pytest.fixture(scope="module")
def network():
  params = synthetic.parameters("R14x0.5", 5)
  model = resnet_v2.create("R14x0.5", 5)
  return networks.Network("synthetic", model, params, tuple("abcde"), SIZE, None, "sha")


class Damaged(Numbered):
  def read(self, index):
    if index in BAD:
      raise errors.UserError(f"image {index} is truncated")
    return super().read(index)


@pytest.fixture(scope="module")
def whole(network):
  return embedding.features(network, Damaged(N), batch_size=BATCH)


class Stopped(Exception):  # noqa: N818
  pass


def stopping(after):
  """A report that stops when so many images are done."""
  done = 0

  def report(count):
    nonlocal done
    done += count
    if done >= after:
      raise Stopped

  return report


def kept(network, folder, source=None, said=None, **more):
  options = {"batch_size": BATCH, "folder": folder, "fingerprint": "images", **more}
  say = (lambda _: None) if said is None else said.append
  return embedding.features(network, source or Damaged(N), say=say, **options)


def assert_same(found, expected):
  np.testing.assert_array_equal(found.indices, expected.indices)
  assert found.values.tobytes() == expected.values.tobytes()
  assert found.values.shape == expected.values.shape
  assert found.unreadable == expected.unreadable


def test_features_are_the_pre_logits_of_the_images_that_can_be_read(network, whole):
  assert whole.unreadable == {i: f"image {i} is truncated" for i in BAD}
  assert whole.indices.tolist() == [i for i in range(N) if i not in BAD]
  computed = outputs.Forward(network, BATCH).run(Numbered(N), {})
  expected = np.concatenate([batch.features for batch in computed])[whole.indices]
  assert whole.values.dtype == np.float32
  np.testing.assert_allclose(whole.values, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("after", [0, 8, 16, 22])
def test_interrupted_work_continues_with_the_same_result(network, whole, tmp_path, after):
  with pytest.raises(Stopped):
    kept(network, tmp_path, report=stopping(after))
  source, said, counts = Damaged(N), [], []
  assert_same(kept(network, tmp_path, source, said, report=counts.append), whole)
  assert (counts[0], sum(counts)) == (after, N)
  assert said == [f"Continuing after {after} of 22 images."] * (0 < after < N)
  assert min({*source.reads, N} - {0}) >= after
  again = Damaged(N)
  assert_same(kept(network, tmp_path, again), whole)
  assert again.reads == []


def test_work_that_was_killed_continues_from_the_last_record(network, whole, tmp_path):
  """The file of features may be longer than recorded, and its end may be damaged."""
  with pytest.raises(Stopped):
    kept(network, tmp_path, report=stopping(8))
  with (tmp_path / "features.bin").open("ab") as file:
    file.write(b"damaged")
  assert_same(kept(network, tmp_path), whole)


def test_records_are_written_while_the_work_goes_on(network, tmp_path, monkeypatch):
  monkeypatch.setattr(embedding, "_SAVED_EVERY", -1.0)
  recorded = []

  def report(_):
    if (tmp_path / "progress.json").exists():
      recorded.append(json.loads((tmp_path / "progress.json").read_text())["done"])

  kept(network, tmp_path, report=report)
  assert recorded == [8, 16, 22]


@pytest.mark.parametrize(
  ("change", "named"),
  [
    ({"fingerprint": "other"}, "list of images"),
    ({"dtype": "float16"}, "dtype"),
    ({"source": Damaged(N + 1)}, "number of images"),
  ],
)
def test_other_work_starts_anew_and_says_so(network, tmp_path, change, named):
  with pytest.raises(Stopped):
    kept(network, tmp_path, report=stopping(8))
  said, counts = [], []
  found = kept(network, tmp_path, said=said, report=counts.append, **change)
  assert counts[0] == 0
  assert said == [
    f"The features in {tmp_path} were computed with another {named}: computing them again."
  ]
  expected = embedding.features(
    network,
    change.get("source", Damaged(N)),
    batch_size=BATCH,
    dtype=change.get("dtype", "float32"),
  )
  assert_same(found, expected)


@pytest.mark.parametrize("after", [16, N])
@pytest.mark.parametrize("mended", [(9,), BAD, (10, 21)])
def test_images_that_can_be_read_later_are_computed(network, tmp_path, after, mended):
  """The rest stays unreadable; the result is that of a source that was mended from the start."""

  class Mended(Damaged):
    def read(self, index):
      return Numbered.read(self, index) if index in mended else super().read(index)

  with contextlib.suppress(Stopped):
    kept(network, tmp_path, report=stopping(after))
  source, counts = Mended(N), []
  found = kept(network, tmp_path, source, report=counts.append)
  assert_same(found, embedding.features(network, Mended(N), batch_size=BATCH))
  assert counts[0] == min(*mended, after)
  assert sum(counts) == N


DAMAGED = {
  "a list of identities": {"identity": []},
  "a text for a number": {"done": "8"},
  "too many": {"done": 10**6},
  "fewer bytes": {"bytes": 4},
  "a list of the unreadable": {"unreadable": [0]},
  "no number": {"unreadable": {"a": "b"}},
  "no reason": {"unreadable": {"0": None}},
}


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b"{}", b"\xff", *DAMAGED])
def test_a_damaged_record_starts_anew(network, whole, tmp_path, damage):
  with pytest.raises(Stopped):
    kept(network, tmp_path, report=stopping(8))
  record = tmp_path / "progress.json"
  if damage in DAMAGED:
    damage = json.dumps({**json.loads(record.read_text()), **DAMAGED[damage]}).encode()
  record.write_bytes(damage)
  counts = []
  assert_same(kept(network, tmp_path, report=counts.append), whole)
  assert counts[0] == 0


def test_lost_features_start_anew(network, whole, tmp_path):
  with pytest.raises(Stopped):
    kept(network, tmp_path, report=stopping(8))
  (tmp_path / "features.bin").unlink()
  said = []
  assert_same(kept(network, tmp_path, said=said), whole)
  assert said == [f"The features in {tmp_path} are incomplete: computing them again."]


def test_a_folder_in_use_is_refused(network, tmp_path):
  def report(_):
    kept(network, tmp_path)

  with pytest.raises(errors.UserError, match=r"Another process .* wait until it has ended"):
    kept(network, tmp_path, report=report)


def test_half_precision(network, whole):
  found = embedding.features(network, Damaged(N), batch_size=BATCH, dtype="float16")
  assert found.values.dtype == np.float16
  np.testing.assert_array_equal(found.values, whole.values.astype(np.float16))


def test_no_image_can_be_read(network, tmp_path):
  class Nothing(Numbered):
    def read(self, index):
      raise errors.UserError("no")

  for folder in (None, tmp_path):
    found = kept(network, folder, Nothing(N))
    assert found.values.shape == (0, network.model.architecture.num_features)
    assert (found.indices.tolist(), len(found.unreadable)) == ([], N)


@pytest.mark.parametrize(
  ("value", "message"),
  [(np.nan, "is not finite"), (1e6, "exceeds the range of float16: use float32")],
)
def test_features_that_cannot_be_stored_are_an_error(value, message):
  with pytest.raises(errors.UserError, match=message):
    embedding._converted(np.array([[value]], np.float32), np.dtype("float16"))
