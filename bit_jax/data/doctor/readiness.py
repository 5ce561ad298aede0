"""What `python -m bit_jax.data doctor` finds and says: which sets are ready, and what others need.

Importing this imports TensorFlow (some 8 s). Nothing here touches the network but `download`.
"""

import dataclasses
import hashlib
import pathlib
import shlex
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from bit_jax.data import datasets, labels, vtab
from bit_jax.data.doctor import preparing
from bit_jax.data.sources import tfds_builders
from bit_jax.data.sources.tfds_builders import tf, tfds
from bit_jax.runtime import errors

HASHED_EXAMPLES = 1_000
_LABEL_BYTES = 8


@dataclasses.dataclass(frozen=True)
class Size:
  """Number of examples of a split, as expected and as found; `found` is None if it isn't there."""

  split: str
  expected: int
  found: int | None


@dataclasses.dataclass(frozen=True)
class Finding:
  """What is known of one set without reading its examples.

  Attributes:
    spec: The set.
    builder: The builder of the copy that runs read; where none is prepared, `recipe`.
    recipe: The builder of the version that the installed tfds prepares.
    prepared: Whether a copy is there.
    differing: The splits whose sizes aren't the expected ones.
    download_bytes: Size of what it is made from.
    needed_bytes: About how much more disk preparing takes.
    free_bytes: Free disk space where it goes.
    missing_by_hand: What a person has to fetch.
  """

  spec: datasets.DatasetSpec
  builder: tfds.core.DatasetBuilder
  recipe: tfds.core.DatasetBuilder
  prepared: bool
  differing: tuple[Size, ...]
  download_bytes: int
  needed_bytes: int
  free_bytes: int
  missing_by_hand: tuple[str, ...]

  @property
  def folder(self) -> pathlib.Path:
    """Where the prepared set lies, or would lie."""
    return pathlib.Path(self.builder.data_dir)

  @property
  def version(self) -> str:
    """The version that is prepared, or would be."""
    return str(self.builder.version)


def examine(spec: datasets.DatasetSpec, data_dir: str | None = None) -> Finding:
  """Looks at one tfds set, prepared or not.

  Args:
    spec: The set, under the protocol whose splits are compared.
    data_dir: As `builders.find_current` takes it.

  Raises:
    UserError: The installed tfds has no such set, or the description of the prepared one is
      damaged.
  """
  assert spec.tfds_name is not None
  recipe = tfds_builders.find_current(spec.tfds_name, data_dir)
  builder = tfds_builders.find(spec.tfds_name, data_dir)
  prepared = builder.is_prepared()
  return Finding(
    spec=spec,
    builder=builder,
    recipe=recipe,
    prepared=prepared,
    differing=_differing(builder, spec) if prepared else (),
    download_bytes=preparing.download_bytes(recipe),
    needed_bytes=0 if prepared else preparing.needed_bytes(recipe),
    free_bytes=preparing.free_bytes(pathlib.Path(recipe.data_dir_root)),
    missing_by_hand=() if prepared else preparing.missing_by_hand(recipe),
  )


def digest(builder: tfds.core.DatasetBuilder, split: str, label: str) -> str:
  """Returns a hash by which two copies of a subset can be told apart, as 64 hexadecimal digits.

  It is the sha256 over, for each of the first 1000 examples of `split` in tfds' order: the bytes of
  the encoded `image` (JPEG or PNG) as they are stored, then the label that the task derives, as a
  64-bit integer with its lowest byte first. It doesn't depend on the number of shards. Sets whose
  images tfds itself encodes (CIFAR, SVHN, dSprites and others) can differ in it and hold the same
  pixels, where another version of the encoder wrote them.

  Args:
    builder: A prepared set.
    split: In tfds' notation, such as 'train[:800]+validation[:200]'.
    label: Name in `labels.DERIVATIONS`.

  Raises:
    UserError: The copy is incomplete or damaged, or too small for the split.
  """
  derivation = labels.DERIVATIONS[label]
  total = hashlib.sha256()
  try:
    dataset = builder.as_dataset(
      split=split,
      shuffle_files=False,
      read_config=tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False),
      decoders=tfds.decode.PartialDecoding(
        {"image": True, **derivation.features},
        decoders={"image": tfds.decode.SkipDecoding()},
      ),
    )
    for example in tfds.as_numpy(dataset.take(HASHED_EXAMPLES)):
      total.update(example["image"])
      total.update(derivation.derive(example).to_bytes(_LABEL_BYTES, "little", signed=True))
  except (tf.errors.OpError, ValueError) as e:
    raise errors.UserError(
      f"{builder.info.full_name} in {builder.data_dir} can't be read ({str(e).splitlines()[0]}): "
      f"delete that folder and prepare the set again."
    ) from e
  return total.hexdigest()


def report(names: Sequence[str], protocol: str, data_dir: str | None) -> None:
  """Prints a table of sets, line by line, then what there is to say about each.

  Args:
    names: Of `datasets.NAMES`, with source 'tfds'.
    protocol: One of `datasets.PROTOCOLS`; the sizes of its splits are compared.
    data_dir: As `builders.find_current` takes it.

  Raises:
    UserError: `data_dir` is no folder.
  """
  tfds_builders.require_folder(data_dir)
  print(f"tensorflow-datasets {tfds.__version__}, protocol {protocol}")
  width = max(len(name) for name in names)
  print(_row("name", "prepared", "sizes", "download", "disk: needed of free", width))
  findings: list[Finding] = []
  faults = {}
  for name in names:
    try:
      findings.append(examine(datasets.find(name, protocol), data_dir))
      print(table_line(findings[-1], width), flush=True)
    except errors.UserError as e:  # the others are still looked at
      faults[name] = str(e)
      print(_row(name, "damaged", "-", "-", "", width), flush=True)
  for finding in findings:
    print()
    for line in detail_lines(finding, data_dir):
      print(line, flush=True)
  for name, fault in faults.items():
    print(f"\n{name}: {fault}")


def table_line(finding: Finding, width: int) -> str:
  """Returns a set's line of the table; its name takes `width` characters."""
  prepared = finding.version if finding.prepared else "no"
  sizes = "-" if not finding.prepared else "differ" if finding.differing else "ok"
  needed = "-" if finding.prepared else f"{_gb(finding.needed_bytes)} of"
  short = ", too little" if finding.free_bytes < finding.needed_bytes else ""
  disk = f"{needed:>12} {_gb(finding.free_bytes)}{short}"
  return _row(finding.spec.name, prepared, sizes, _gb(finding.download_bytes), disk, width)


def detail_lines(finding: Finding, data_dir: str | None) -> Iterator[str]:
  """Yields what there is to say about a set: its hash, or the way to get it."""
  name = finding.spec.name
  if finding.prepared:
    yield f"{name}: {finding.version} in {finding.folder}"
    if str(finding.recipe.version) != finding.version:
      yield (
        f"  another version: tensorflow-datasets {tfds.__version__} would prepare "
        f"{finding.recipe.version}"
      )
    for size in finding.differing:
      found = "isn't there" if size.found is None else f"has {size.found:,} examples"
      yield f"  differs: {size.split} {found}, {size.expected:,} are expected"
    yield f"  {_digest_line(finding)}"
  else:
    place = "is there, but holds no set: delete it" if finding.folder.exists() else "is not there"
    yield f"{name}: not prepared, {finding.folder} {place}"
    yield from _way_lines(finding, data_dir)
  for note in preparing.find_source(finding.recipe).notes:
    yield f"  note: {note}"


def download(names: Sequence[str], protocol: str, data_dir: str | None) -> dict[str, str]:
  """Downloads and prepares those sets that aren't prepared, one after the other.

  Args:
    names: Of `datasets.NAMES`.
    protocol: One of `datasets.PROTOCOLS`.
    data_dir: As `builders.find_current` takes it.

  Returns:
    {name: why} for the sets that could not be prepared.

  Raises:
    UserError: `data_dir` is no folder, or there is no home folder that would do without it.
  """
  tfds_builders.require_folder(data_dir)
  if not tfds_builders.has_folder(data_dir):
    raise errors.UserError(
      f"There is no place for prepared sets: {tfds.core.constants.DATA_DIR} names no home folder. "
      f"Give --data_dir=DIR, or set TFDS_DATA_DIR."
    )
  outcomes: dict[str, str | None] = {}  # by tfds' name: two of ours can stand for one of its sets
  failed = {}
  for name in names:
    tfds_name = str(datasets.find(name, protocol).tfds_name)
    if tfds_name not in outcomes:
      outcomes[tfds_name] = _try_download(name, tfds_name, data_dir)
    if (reason := outcomes[tfds_name]) is not None:
      failed[name] = reason
  return failed


def _try_download(name: str, tfds_name: str, data_dir: str | None) -> str | None:
  """Returns why a set can't be prepared, or None."""
  try:
    _download(name, tfds_name, data_dir)
  except errors.UserError as e:
    print(f"error: {e}", file=sys.stderr, flush=True)
    return str(e)
  return None


def _download(name: str, tfds_name: str, data_dir: str | None) -> None:
  recipe = tfds_builders.find_current(tfds_name, data_dir)
  builder = tfds_builders.find(tfds_name, data_dir)
  if builder.is_prepared():
    print(f"{name}: prepared already, in {builder.data_dir}", flush=True)
    return
  size = sum(f.size for f in preparing.files(recipe) if not f.at_hand)
  if not preparing.missing_by_hand(recipe):
    print(f"{name}: {_gb(size)} to download, into {recipe.data_dir}", flush=True)
  preparing.prepare(recipe)


def _differing(builder: tfds.core.DatasetBuilder, spec: datasets.DatasetSpec) -> tuple[Size, ...]:
  accepted = preparing.find_source(builder).accepted
  sizes = (Size(s, n, _num_examples(builder, s)) for s, n in _expected(spec).items())
  return tuple(s for s in sizes if s.found not in (s.expected, accepted.get(s.split, s.expected)))


def _expected(spec: datasets.DatasetSpec) -> dict[str, int]:
  """Returns {split: number of examples}: those in use, and for a VTAB task the whole parts."""
  sizes = {spec.train_split: spec.num_train, spec.test_split: spec.num_test}
  if spec.name.startswith("vtab/"):
    task = vtab.find(spec.name.removeprefix("vtab/"))
    sizes |= {task.splits.train: task.num_train, task.splits.val: task.num_val}
    sizes |= {task.splits.test: task.num_test}
  return sizes


def _num_examples(builder: tfds.core.DatasetBuilder, split: str) -> int | None:
  try:
    return int(builder.info.splits[split].num_examples)
  except (KeyError, ValueError):
    return None


def _digest_line(finding: Finding) -> str:
  spec = datasets.find(finding.spec.name, "final")
  try:
    value = digest(finding.builder, spec.train_split, spec.label)
  except errors.UserError as e:
    return f"damaged: {e}"
  whole = spec.num_train == HASHED_EXAMPLES
  which = "the" if whole else "the first"
  return f"sha256 of {which} {HASHED_EXAMPLES:,} examples of {spec.train_split}: {value}"


def _way_lines(finding: Finding, data_dir: str | None) -> Iterator[str]:
  """Yields the steps to a prepared set: the command alone, or what comes before it."""
  recipe = finding.recipe
  place = "" if data_dir is None else f" --data_dir={shlex.quote(data_dir)}"
  if not tfds_builders.has_folder(data_dir):
    place = " --data_dir=DIR"
  command = f"python -m bit_jax.data doctor {finding.spec.name} --download{place}"
  if finding.free_bytes < finding.needed_bytes:
    yield (
      f"  first: free disk space in {recipe.data_dir_root}, or give another --data_dir: about "
      f"{_gb(finding.needed_bytes)} are needed, {_gb(finding.free_bytes)} are free"
    )
  if packages := preparing.missing_packages(recipe):
    yield f"  first: pip install {' '.join(packages)}"
  if not finding.missing_by_hand:
    yield f"  next: {command}"
    return
  manual = preparing.manual_folder(recipe)
  yield f"  by hand, for {manual} lacks {', '.join(finding.missing_by_hand)}:"
  steps = (s.format(manual=manual) for s in preparing.find_source(recipe).steps)
  for number, step in enumerate((*steps, f"Then: {command}"), start=1):
    yield f"  {number}. {step}"


def _row(name: Any, prepared: str, sizes: str, download: str, disk: str, width: int) -> str:
  return f"{name:{width}}  {prepared:8}  {sizes:6}  {download:>9}  {disk}"


def _gb(size: int) -> str:
  return f"{size / 1e6:.1f} MB" if size < 1e9 else f"{size / 1e9:.1f} GB"
