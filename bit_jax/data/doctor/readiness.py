"""Report of `python -m bit_jax.data doctor`: which sets are prepared, and what the others need.

Importing this imports TensorFlow (about 8 s). Only `download` uses the network.
"""

import dataclasses
import hashlib
import pathlib
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence

from bit_jax.data import datasets, labels, vtab
from bit_jax.data.doctor import preparing
from bit_jax.data.sources import tfds_builders
from bit_jax.data.sources.tfds_builders import tf, tfds
from bit_jax.runtime import errors
from bit_jax.runtime.phrases import file_size

HASHED_EXAMPLES = 1_000
_LABEL_BYTES = 8


@dataclasses.dataclass(frozen=True)
class Finding:
  """The state of one set, without reading its examples.

  Attributes:
    spec: The set.
    builder: The builder of the copy that runs read; if none is prepared, that of `recipe`.
    recipe: The preparation of the version that the installed tfds prepares.
    prepared: Whether a copy exists.
    differing: A clause on each split of the copy with another size than expected.
  """

  spec: datasets.DatasetSpec
  builder: tfds.core.DatasetBuilder
  recipe: preparing.Recipe
  prepared: bool
  differing: tuple[str, ...]

  @property
  def version(self) -> str:
    """The version that is prepared or would be prepared."""
    return str(self.builder.version)

  @property
  def needed_bytes(self) -> int:
    """Approximate disk space that preparing still needs."""
    return 0 if self.prepared else self.recipe.needed_bytes


def examine(spec: datasets.DatasetSpec, data_dir: str | None = None) -> Finding:
  """Examines one tfds set, prepared or not.

  Args:
    spec: The set, under the protocol whose splits are compared.
    data_dir: The data directory, as in `tfds_builders.find_current`.

  Raises:
    UserError: The installed tfds doesn't know the set, or the description of the prepared copy is
      damaged.
  """
  recipe = preparing.Recipe(tfds_builders.find_current(str(spec.tfds_name), data_dir))
  builder = tfds_builders.find(str(spec.tfds_name), data_dir)
  prepared = builder.is_prepared()
  differing = tuple(_differing(builder, spec, recipe.source.accepted)) if prepared else ()
  return Finding(spec, builder, recipe, prepared, differing)


def digest(builder: tfds.core.DatasetBuilder, split: str, label: str) -> str:
  """Returns a hash that identifies a copy of a subset, as 64 hexadecimal digits.

  It is the sha256 over, for each of the first 1000 examples of `split` in tfds' order: the bytes of
  the encoded `image` (JPEG or PNG) as they are stored, then the label that the task derives, as a
  little-endian 64-bit integer. It doesn't depend on the number of shards. Where tfds itself encodes
  the images (CIFAR, SVHN, dSprites and others), another version of the encoder can give another
  hash for the same pixels.

  Args:
    builder: A prepared set.
    split: The split in tfds' notation, such as 'train[:800]+validation[:200]'.
    label: Name in `labels.DERIVATIONS`.

  Raises:
    UserError: The copy is incomplete or damaged, or too small for the split.
  """
  derivation = labels.DERIVATIONS[label]
  total = hashlib.sha256()
  try:
    features, as_stored = {"image": True, **derivation.features}, tfds.decode.SkipDecoding()
    dataset = tfds_builders.read(builder, split, features, {"image": as_stored})
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
    names: Names out of `datasets.NAMES`, of sets of tensorflow-datasets.
    protocol: One of `datasets.PROTOCOLS`; the sizes of its splits are compared.
    data_dir: The data directory, as in `tfds_builders.find_current`.

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
  needed, free = finding.needed_bytes, finding.recipe.free_bytes
  disk = f"{'-' if finding.prepared else f'{file_size(needed)} of':>12} {file_size(free)}"
  disk += ", too little" if free < needed else ""
  download = file_size(finding.recipe.download_bytes)
  return _row(finding.spec.name, prepared, sizes, download, disk, width)


def detail_lines(finding: Finding, data_dir: str | None) -> Iterator[str]:
  """Yields the details of a set: its hash, or how to prepare it."""
  name, builder, current = finding.spec.name, finding.builder, finding.recipe.builder.version
  if finding.prepared:
    yield f"{name}: {finding.version} in {builder.data_dir}"
    if str(current) != finding.version:
      yield f"  other version: tensorflow-datasets {tfds.__version__} prepares {current}"
    yield from (f"  differs: {difference}" for difference in finding.differing)
    yield f"  {_digest_line(finding)}"
  else:
    exists = pathlib.Path(builder.data_dir).exists()
    state = "contains no data set: delete it" if exists else "doesn't exist"
    yield f"{name}: not prepared, {builder.data_dir} {state}"
    yield from _way_lines(finding, data_dir)
  yield from (f"  note: {note}" for note in finding.recipe.source.notes)


def download(names: Sequence[str], protocol: str, data_dir: str | None) -> dict[str, str]:
  """Downloads and prepares all sets that are not prepared, one after the other.

  Args:
    names: Names out of `datasets.NAMES`.
    protocol: One of `datasets.PROTOCOLS`.
    data_dir: The data directory, as in `tfds_builders.find_current`.

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
  specs = [datasets.find(name, protocol) for name in names]
  outcomes: dict[str | None, str | None] = {}  # by tfds' name, which two names may share
  for spec in specs:
    if spec.tfds_name not in outcomes:
      outcomes[spec.tfds_name] = _download(spec, data_dir)
  return {spec.name: why for spec in specs if (why := outcomes[spec.tfds_name])}


def _download(spec: datasets.DatasetSpec, data_dir: str | None) -> str | None:
  """Prepares a set; returns why that failed, or None."""
  try:
    finding = examine(spec, data_dir)
    recipe = finding.recipe
    if finding.prepared:
      print(f"{spec.name}: already prepared in {finding.builder.data_dir}", flush=True)
      return None
    if not recipe.missing_manual:
      size, folder = file_size(recipe.absent_bytes), recipe.builder.data_dir
      print(f"{spec.name}: downloading {size} to {folder}", flush=True)
    recipe.prepare()
  except errors.UserError as e:
    print(f"error: {e}", file=sys.stderr, flush=True)
    return str(e)
  return None


def _differing(
  builder: tfds.core.DatasetBuilder, spec: datasets.DatasetSpec, accepted: Mapping[str, int]
) -> Iterator[str]:
  """Yields a clause on each split in use, or of a VTAB task, of another size than expected."""
  sizes = {spec.train_split: spec.num_train, spec.test_split: spec.num_test}
  if spec.name.startswith("vtab/"):
    task = vtab.find(spec.name.removeprefix("vtab/"))
    sizes |= {task.splits.train: task.num_train, task.splits.val: task.num_val}
    sizes |= {task.splits.test: task.num_test}
  for split, expected in sizes.items():
    try:
      found = int(builder.info.splits[split].num_examples)
    except (KeyError, ValueError):
      yield f"{split} is missing, expected {expected:,}"
    else:
      if found not in (expected, accepted.get(split, expected)):
        yield f"{split} has {found:,} examples, expected {expected:,}"


def _digest_line(finding: Finding) -> str:
  spec = datasets.find(finding.spec.name, "final")
  try:
    value = digest(finding.builder, spec.train_split, spec.label)
  except errors.UserError as e:
    return f"damaged: {e}"
  which = "the" if spec.num_train == HASHED_EXAMPLES else "the first"
  return f"sha256 of {which} {HASHED_EXAMPLES:,} examples of {spec.train_split}: {value}"


def _way_lines(finding: Finding, data_dir: str | None) -> Iterator[str]:
  """Yields the steps to prepare a set; the last is the command."""
  recipe = finding.recipe
  place = "" if data_dir is None else f" --data_dir={shlex.quote(data_dir)}"
  if not tfds_builders.has_folder(data_dir):
    place = " --data_dir=DIR"
  command = f"python -m bit_jax.data doctor {finding.spec.name} --download{place}"
  if recipe.free_bytes < recipe.needed_bytes:
    yield (
      f"  first: free disk space in {recipe.root} ({file_size(recipe.free_bytes)} free, about "
      f"{file_size(recipe.needed_bytes)} needed), or choose another --data_dir"
    )
  if packages := recipe.missing_packages:
    yield f"  first: pip install {' '.join(packages)}"
  if not recipe.missing_manual:
    yield f"  next: {command}"
    return
  yield f"  manual steps, because {recipe.manual} lacks {', '.join(recipe.missing_manual)}:"
  steps = (s.format(manual=recipe.manual) for s in recipe.source.steps)
  for number, step in enumerate((*steps, f"Then: {command}"), start=1):
    yield f"  {number}. {step}"


def _row(name: str, prepared: str, sizes: str, download: str, disk: str, width: int) -> str:
  return f"{name:{width}}  {prepared:8}  {sizes:6}  {download:>9}  {disk}"
