"""Report of `python -m bit_jax.data doctor`: which sets are prepared, and what the others need.

Importing this imports TensorFlow (about 8 s). Only `download` uses the network.
"""

import dataclasses
import hashlib
import pathlib
import shlex
import sys
from collections.abc import Iterator, Sequence

from bit_jax.data import datasets, labels, vtab
from bit_jax.data.doctor import preparing
from bit_jax.data.sources import tfds_builders
from bit_jax.data.sources.tfds_builders import tf, tfds
from bit_jax.runtime import errors

HASHED_EXAMPLES = 1_000
_LABEL_BYTES = 8


@dataclasses.dataclass(frozen=True)
class Size:
  """Number of examples of a split, expected and found; `found` is None if the split is missing."""

  split: str
  expected: int
  found: int | None


@dataclasses.dataclass(frozen=True)
class Finding:
  """The state of one set, without reading its examples.

  Attributes:
    spec: The set.
    builder: The builder of the copy that runs read; if none is prepared, `recipe`.
    recipe: The builder of the version that the installed tfds prepares.
    prepared: Whether a copy exists.
    differing: The splits with another size than expected.
    download_bytes: Size of its source files.
    needed_bytes: Approximate disk space that preparing needs.
    free_bytes: Free disk space in the data directory.
    missing_manual: Source files that have to be downloaded manually.
  """

  spec: datasets.DatasetSpec
  builder: tfds.core.DatasetBuilder
  recipe: tfds.core.DatasetBuilder
  prepared: bool
  differing: tuple[Size, ...]
  download_bytes: int
  needed_bytes: int
  free_bytes: int
  missing_manual: tuple[str, ...]

  @property
  def folder(self) -> pathlib.Path:
    """The folder of the prepared set, existing or not."""
    return pathlib.Path(self.builder.data_dir)

  @property
  def version(self) -> str:
    """The version that is prepared or would be prepared."""
    return str(self.builder.version)


def examine(spec: datasets.DatasetSpec, data_dir: str | None = None) -> Finding:
  """Examines one tfds set, prepared or not.

  Args:
    spec: The set, under the protocol whose splits are compared.
    data_dir: As in `tfds_builders.find_current`.

  Raises:
    UserError: The installed tfds doesn't know the set, or the description of the prepared copy is
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
    missing_manual=() if prepared else preparing.missing_manual(recipe),
  )


def digest(builder: tfds.core.DatasetBuilder, split: str, label: str) -> str:
  """Returns a hash that identifies a copy of a subset, as 64 hexadecimal digits.

  It is the sha256 over, for each of the first 1000 examples of `split` in tfds' order: the bytes of
  the encoded `image` (JPEG or PNG) as they are stored, then the label that the task derives, as a
  little-endian 64-bit integer. It doesn't depend on the number of shards. Where tfds itself encodes
  the images (CIFAR, SVHN, dSprites and others), another version of the encoder can give another
  hash for the same pixels.

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
  """Prints a table of sets, then details of each.

  Args:
    names: Of `datasets.NAMES`, with source 'tfds'.
    protocol: One of `datasets.PROTOCOLS`; the sizes of its splits are compared.
    data_dir: As in `tfds_builders.find_current`.

  Raises:
    UserError: `data_dir` is not a folder.
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
    except errors.UserError as e:  # the others are still examined
      faults[name] = str(e)
      print(_row(name, "damaged", "-", "-", "", width), flush=True)
  for finding in findings:
    print()
    for line in detail_lines(finding, data_dir):
      print(line, flush=True)
  for name, fault in faults.items():
    print(f"\n{name}: {fault}")


def table_line(finding: Finding, width: int) -> str:
  """Returns a set's line of the table; its name is padded to `width` characters."""
  prepared = finding.version if finding.prepared else "no"
  sizes = "-" if not finding.prepared else "differ" if finding.differing else "ok"
  needed = "-" if finding.prepared else f"{_gb(finding.needed_bytes)} of"
  short = ", too little" if finding.free_bytes < finding.needed_bytes else ""
  disk = f"{needed:>12} {_gb(finding.free_bytes)}{short}"
  return _row(finding.spec.name, prepared, sizes, _gb(finding.download_bytes), disk, width)


def detail_lines(finding: Finding, data_dir: str | None) -> Iterator[str]:
  """Yields the details of a set: its hash, or how to prepare it."""
  name = finding.spec.name
  if finding.prepared:
    yield f"{name}: {finding.version} in {finding.folder}"
    if str(finding.recipe.version) != finding.version:
      yield (
        f"  other version: tensorflow-datasets {tfds.__version__} prepares {finding.recipe.version}"
      )
    for size in finding.differing:
      found = "is missing" if size.found is None else f"has {size.found:,} examples"
      yield f"  differs: {size.split} {found}, expected {size.expected:,}"
    yield f"  {_digest_line(finding)}"
  else:
    state = "contains no data set: delete it" if finding.folder.exists() else "doesn't exist"
    yield f"{name}: not prepared, {finding.folder} {state}"
    yield from _way_lines(finding, data_dir)
  for note in preparing.find_source(finding.recipe).notes:
    yield f"  note: {note}"


def download(names: Sequence[str], protocol: str, data_dir: str | None) -> dict[str, str]:
  """Downloads and prepares all sets that are not prepared, one after the other.

  Args:
    names: Of `datasets.NAMES`.
    protocol: One of `datasets.PROTOCOLS`.
    data_dir: As in `tfds_builders.find_current`.

  Returns:
    {name: why} for the sets that could not be prepared.

  Raises:
    UserError: `data_dir` is not a folder, or it is None and there is no home folder.
  """
  tfds_builders.require_folder(data_dir)
  if not tfds_builders.has_folder(data_dir):
    raise errors.UserError(
      f"No folder for prepared sets: there is no home folder for {tfds.core.constants.DATA_DIR}. "
      f"Use --data_dir=DIR, or set TFDS_DATA_DIR."
    )
  outcomes: dict[str, str | None] = {}  # by tfds' name, which two names may share
  failed = {}
  for name in names:
    tfds_name = str(datasets.find(name, protocol).tfds_name)
    if tfds_name not in outcomes:
      outcomes[tfds_name] = _download(name, tfds_name, data_dir)
    if (reason := outcomes[tfds_name]) is not None:
      failed[name] = reason
  return failed


def _download(name: str, tfds_name: str, data_dir: str | None) -> str | None:
  """Prepares a set; returns why that failed, or None."""
  try:
    recipe = tfds_builders.find_current(tfds_name, data_dir)
    builder = tfds_builders.find(tfds_name, data_dir)
    if builder.is_prepared():
      print(f"{name}: already prepared in {builder.data_dir}", flush=True)
      return None
    if not preparing.missing_manual(recipe):
      size = sum(f.size for f in preparing.files(recipe) if not f.present)
      print(f"{name}: downloading {_gb(size)} to {recipe.data_dir}", flush=True)
    preparing.prepare(recipe)
  except errors.UserError as e:
    print(f"error: {e}", file=sys.stderr, flush=True)
    return str(e)
  return None


def _differing(builder: tfds.core.DatasetBuilder, spec: datasets.DatasetSpec) -> tuple[Size, ...]:
  accepted = preparing.find_source(builder).accepted
  sizes = (Size(s, n, _num_examples(builder, s)) for s, n in _expected(spec).items())
  return tuple(s for s in sizes if s.found not in (s.expected, accepted.get(s.split, s.expected)))


def _expected(spec: datasets.DatasetSpec) -> dict[str, int]:
  """Returns {split: number of examples} of the splits in use and, for a VTAB task, its parts."""
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
  """Yields the steps to prepare a set; the last is the command."""
  recipe = finding.recipe
  place = "" if data_dir is None else f" --data_dir={shlex.quote(data_dir)}"
  if not tfds_builders.has_folder(data_dir):
    place = " --data_dir=DIR"
  command = f"python -m bit_jax.data doctor {finding.spec.name} --download{place}"
  if finding.free_bytes < finding.needed_bytes:
    yield (
      f"  first: free disk space in {recipe.data_dir_root} ({_gb(finding.free_bytes)} free, about "
      f"{_gb(finding.needed_bytes)} needed), or choose another --data_dir"
    )
  if packages := preparing.missing_packages(recipe):
    yield f"  first: pip install {' '.join(packages)}"
  if not finding.missing_manual:
    yield f"  next: {command}"
    return
  manual = preparing.manual_folder(recipe)
  yield f"  manual steps, because {manual} lacks {', '.join(finding.missing_manual)}:"
  steps = (s.format(manual=manual) for s in preparing.find_source(recipe).steps)
  for number, step in enumerate((*steps, f"Then: {command}"), start=1):
    yield f"  {number}. {step}"


def _row(name: str, prepared: str, sizes: str, download: str, disk: str, width: int) -> str:
  return f"{name:{width}}  {prepared:8}  {sizes:6}  {download:>9}  {disk}"


def _gb(size: int) -> str:
  return f"{size / 1e6:.1f} MB" if size < 1e9 else f"{size / 1e9:.1f} GB"
