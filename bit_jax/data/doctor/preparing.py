"""What preparing a set with tensorflow-datasets takes: files, disk, network, hands; and doing it.

Importing this imports TensorFlow (some 8 s). Only `prepare` touches the network.

Sources: the builders and checksum lists of tensorflow-datasets 4.9.10, from which the URLs, sizes
and sha256 are taken at run time; the two archives of ImageNet have their own (image-net.org).
"""

import contextlib
import dataclasses
import importlib.util
import pathlib
import shutil
import socket
import threading
import urllib.parse
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from tensorflow_datasets.core.download import resource

from bit_jax.data.sources.tfds_builders import tfds
from bit_jax.runtime import errors, proxies

CONNECT_SECONDS = 4.0  # to find out whether a server answers at all
_PORTS = {"http": 80, "https": 443, "ftp": 21}


@dataclasses.dataclass(frozen=True)
class Source:
  """What is particular about preparing one builder.

  Attributes:
    prepared_bytes: About how large the prepared copy is; None: about as large as the download.
    unpacks: Whether tfds unpacks the download to disk before it prepares the set.
    unused: Parts of those URLs in tfds' list that this project's config doesn't fetch.
    modules: {Python module: package that brings it} that preparing needs.
    by_hand: {glob pattern: number of files} that must lie in the manual folder first.
    by_hand_bytes: About how large they are.
    steps: How they get there, in order; `{manual}` stands for the manual folder.
    accepted: {split: size} that differs from the expected one and does no harm.
    notes: What one ought to know about the set's versions and sources.
  """

  prepared_bytes: int | None = None
  unpacks: bool = True
  unused: tuple[str, ...] = ()
  modules: Mapping[str, str] = dataclasses.field(default_factory=dict)
  by_hand: Mapping[str, int] = dataclasses.field(default_factory=dict)
  by_hand_bytes: int = 0
  steps: tuple[str, ...] = ()
  accepted: Mapping[str, int] = dataclasses.field(default_factory=dict)
  notes: tuple[str, ...] = ()


_CV2 = {"cv2": "opencv-python-headless"}
_H5PY = {"h5py": "h5py"}
_SCIPY = {"scipy": "scipy"}

_IMAGENET = Source(
  unpacks=False,
  unused=("image-net.org",),  # listed with its checksums, never fetched
  by_hand={"ILSVRC2012_img_train.tar": 1, "ILSVRC2012_img_val.tar": 1},
  by_hand_bytes=147_897_477_120 + 6_744_924_160,
  steps=(
    "Register at https://image-net.org/download-images.",
    "Put ILSVRC2012_img_train.tar (147.9 GB) and ILSVRC2012_img_val.tar (6.7 GB), as they are, "
    "into {manual}.",
  ),
)
_RESISC45 = Source(
  by_hand={"NWPU-RESISC45/*/*.jpg": 31_500},
  by_hand_bytes=400_000_000,
  steps=(
    "Download the rar archive (about 0.4 GB) at https://1drv.ms/u/s!AmgKYzARBl5ca3HNaHIlzp_IXjs.",
    "Unpack it in {manual}, so that the images are {manual}/NWPU-RESISC45/<class>/*.jpg.",
  ),
)
_RETINOPATHY = Source(
  prepared_bytes=5_000_000_000,  # 88,702 JPEG files of at most 540 x 540 pixels
  modules=_CV2,
  by_hand={
    "train/*.jpeg": 35_126,
    "test/*.jpeg": 10_906 + 42_670,
    "sample/*.jpeg": 1,
    "trainLabels.csv": 1,
  },
  by_hand_bytes=80_000_000_000,
  steps=(
    "Accept the rules at https://www.kaggle.com/c/diabetic-retinopathy-detection/data and download "
    "all parts of train.zip (the fifth is easily missed) and of test.zip, sample.zip and "
    "trainLabels.csv (about 80 GB).",
    "Unpack the images into {manual}/train, {manual}/test and {manual}/sample, and trainLabels.csv "
    "into {manual}.",
  ),
)
_SUN397 = Source(
  prepared_bytes=5_000_000_000,  # 108,753 JPEG files of at most 120,000 pixels
  unpacks=False,
  modules=_CV2,
  steps=(
    "The set's address, https://vision.princeton.edu/projects/2010/SUN/, is dead (404), so its "
    "archives must come from elsewhere. Mirrors that people name are OpenDataLab/SUN397 at "
    "opendatalab.com, with the raw images, and copies on Kaggle, where a 50-50 split under other "
    "file names is of no use. The archives must be the original ones, byte for byte: tfds checks "
    "their sha256.",
    "Put SUN397.tar.gz (39,077,296,924 bytes, sha256 "
    "f404130965a7ad77bed5ececc71e720ab50f3cc1e1bb257257610d38f3b928ec) and Partitions.zip "
    "(18,293,705 bytes, sha256 e3311ea5f812d4cc6faef194688343d1111f6cd6f70f2c62f393c2b8d6ba1ec9) "
    "into {manual}, under these names; tfds takes them from there.",
  ),
  accepted={"train": 76_127},
  notes=(
    "tfds 4.9.10 leaves out an undecodable image, so train has 76,127 images where VTAB counts "
    "76,128; it is none of the 1000.",
  ),
)
_CALTECH101 = Source(
  unused=("drive.google.com",),
  notes=(
    "Which images are in train and in test depends on the order in which a file system lists them, "
    "so only Google's prepared copy holds the 1000 of the paper.",
  ),
)
_KITTI = Source(
  prepared_bytes=7_000_000_000,  # the labelled half of the images
  unpacks=False,
  modules=_CV2,
  notes=("VTAB asks for 3.1.0; the examples and splits of 3.2.0 and 3.3.0 are the same.",),
)
_PETS = Source(
  notes=(
    "VTAB asks for 3.*.*, tfds 4.9.10 prepares 4.0.0 alone: the examples and splits are the same, "
    "and 12 damaged images were encoded anew.",
  ),
)

SOURCES: Mapping[str, Source] = {
  "caltech101": _CALTECH101,
  "cats_vs_dogs": Source(unpacks=False),
  "diabetic_retinopathy_detection": _RETINOPATHY,
  "dsprites": Source(prepared_bytes=500_000_000, unpacks=False, modules=_H5PY),
  "eurosat": Source(unused=("allBands",)),
  "imagenet2012": _IMAGENET,
  "kitti": _KITTI,
  "oxford_flowers102": Source(modules=_SCIPY),
  "oxford_iiit_pet": _PETS,
  "patch_camelyon": Source(modules=_H5PY),
  "resisc45": _RESISC45,
  "sun397": _SUN397,
  "svhn_cropped": Source(
    unpacks=False,
    modules=_SCIPY,
    notes=("1.3 GB of the download are extra images, which the task doesn't use.",),
  ),
  "tf_flowers": Source(unpacks=False),
}


@dataclasses.dataclass(frozen=True)
class File:
  """One file that tfds fetches.

  Attributes:
    url: Where from.
    size: In bytes.
    at_hand: Whether it lies in tfds' folder of downloads, or in its manual folder, already.
  """

  url: str
  size: int
  at_hand: bool


def find_source(builder: tfds.core.DatasetBuilder) -> Source:
  """Returns what is particular about preparing a set."""
  return SOURCES.get(builder.name, Source())


def downloads_folder(builder: tfds.core.DatasetBuilder) -> pathlib.Path:
  """Returns the folder that tfds keeps downloaded files in."""
  return pathlib.Path(builder.data_dir_root) / "downloads"


def manual_folder(builder: tfds.core.DatasetBuilder) -> pathlib.Path:
  """Returns the folder in which tfds looks for what was put there by hand."""
  return downloads_folder(builder) / "manual"


def files(builder: tfds.core.DatasetBuilder) -> tuple[File, ...]:
  """Returns the files that tfds fetches for a set, from its list of checksums."""
  unused = find_source(builder).unused
  return tuple(
    File(url, int(info.size), _is_at_hand(builder, url, info))
    for url, info in (builder.url_infos or {}).items()
    if not any(part in url for part in unused)
  )


def _is_at_hand(builder: tfds.core.DatasetBuilder, url: str, info: Any) -> bool:
  """Tells whether tfds would take a file from disk (`DownloadManager._download_or_get_cache`)."""
  if info.filename and (manual_folder(builder) / info.filename).is_file():
    return True
  name = resource.get_dl_fname(url, info.checksum)
  folder = downloads_folder(builder)
  cached = (folder / builder.name / name, folder / name)
  return any(p.is_file() and p.with_name(f"{p.name}.INFO").is_file() for p in cached)


def missing_by_hand(builder: tfds.core.DatasetBuilder) -> tuple[str, ...]:
  """Returns what still has to be put into the manual folder, e.g. '2 of 31500 files a/*.jpg'."""
  folder = manual_folder(builder)
  missing = []
  for pattern, wanted in find_source(builder).by_hand.items():
    found = sum(1 for _ in folder.glob(pattern))
    if found < wanted:
      missing.append(f"{wanted - found:,} of {wanted:,} files {pattern}" if found else pattern)
  if find_source(builder).steps and not find_source(builder).by_hand:  # the addresses are dead
    missing += [pathlib.PurePosixPath(f.url).name for f in files(builder) if not f.at_hand]
  return tuple(missing)


def missing_packages(builder: tfds.core.DatasetBuilder) -> tuple[str, ...]:
  """Returns the Python packages that preparing needs and that aren't installed."""
  modules = find_source(builder).modules
  return tuple(p for m, p in modules.items() if importlib.util.find_spec(m) is None)


def download_bytes(builder: tfds.core.DatasetBuilder) -> int:
  """Returns the size of all a set is made from, whether it is at hand or not."""
  return sum(f.size for f in files(builder)) + find_source(builder).by_hand_bytes


def needed_bytes(builder: tfds.core.DatasetBuilder) -> int:
  """Returns about how much more disk preparing takes: to download, unpacked, and prepared."""
  source, total = find_source(builder), download_bytes(builder)
  fetched = sum(f.size for f in files(builder))
  absent = sum(f.size for f in files(builder) if not f.at_hand)
  if source.by_hand and missing_by_hand(builder):
    absent += source.by_hand_bytes
  unpacked = fetched if source.unpacks else 0
  return absent + unpacked + (total if source.prepared_bytes is None else source.prepared_bytes)


def free_bytes(folder: pathlib.Path) -> int:
  """Returns the free disk space where `folder` is, or would be."""
  existing = next(p for p in (folder, *folder.absolute().parents) if p.exists())
  return shutil.disk_usage(existing).free


def prepare(builder: tfds.core.DatasetBuilder, seconds: float = CONNECT_SECONDS) -> None:
  """Downloads and prepares a set, after a look at whether that can succeed.

  Args:
    builder: From `builders.find_current`; not prepared yet.
    seconds: How long a server may take to answer.

  Raises:
    UserError: Something must be done by hand first, a package or disk space is missing, a server
      can't be reached, or tfds gives up.
  """
  _require_by_hand(builder)
  _require_modules(builder)
  _require_disk(builder)
  if faults := unreachable((f.url for f in files(builder) if not f.at_hand), seconds):
    raise errors.UserError(f"{builder.info.full_name} can't be downloaded: {'; '.join(faults)}.")
  config = tfds.download.DownloadConfig(try_download_gcs=False)
  try:
    builder.download_and_prepare(download_config=config)
  except Exception as e:  # whatever a server, an archive or a disk makes tfds raise
    raise errors.UserError(
      f"tfds could not prepare {builder.info.full_name}: {type(e).__name__}: {_first_line(e)}"
    ) from e
  if not builder.is_prepared():
    raise errors.UserError(f"{builder.data_dir} is in the way and holds no set: delete it.")


def unreachable(urls: Iterable[str], seconds: float = CONNECT_SECONDS) -> list[str]:
  """Returns a clause on each server (or the proxy before it) that doesn't accept a connection.

  Args:
    urls: Of files; each server is asked once, with nothing sent.
    seconds: How long each may take.
  """
  faults = []
  for way in dict.fromkeys(map(_way, urls)):
    if isinstance(way, str):
      faults.append(way)
    elif why := _refusal(*way.address, seconds):
      faults.append(f"{way.name} can't be reached ({why}){way.remedy}")
  return faults


class _Way(NamedTuple):
  """What a download connects to first.

  Attributes:
    name: What a message calls it.
    address: Host and port.
    remedy: What else to say where it can't be reached.
  """

  name: str
  address: tuple[str, int]
  remedy: str = ""


def _way(url: str) -> _Way | str:
  """Returns what a download of `url` connects to, or a clause on why its proxy can't be used."""
  if proxy := proxies.find(url):
    return proxy.fault or _Way(str(proxy), proxy.address, f": {proxy.remedy}")
  parts = urllib.parse.urlsplit(url)
  host = parts.hostname or ""
  return _Way(host, (host, parts.port or _PORTS.get(parts.scheme, 80)))


def _refusal(host: str, port: int, seconds: float) -> str | None:
  """Returns why no connection comes about, or None.

  Looking up a name knows no time limit of its own, hence the thread, which nobody waits for.
  """
  outcome: list[str | None] = []

  def connect() -> None:
    try:
      with contextlib.closing(socket.create_connection((host, port), timeout=seconds)):
        outcome.append(None)
    except OSError as e:
      outcome.append(e.strerror or str(e))

  thread = threading.Thread(target=connect, daemon=True)
  thread.start()
  thread.join(seconds)
  return outcome[0] if outcome else f"no answer within {seconds:g} s"


def _require_by_hand(builder: tfds.core.DatasetBuilder) -> None:
  if missing := missing_by_hand(builder):
    raise errors.UserError(
      f"{builder.info.full_name} can't be downloaded by a program, and {manual_folder(builder)} "
      f"lacks {', '.join(missing)}."
    )


def _require_modules(builder: tfds.core.DatasetBuilder) -> None:
  if missing := missing_packages(builder):
    raise errors.UserError(
      f"Preparing {builder.info.full_name} needs {' and '.join(missing)}: pip install "
      f"{' '.join(missing)}."
    )


def _require_disk(builder: tfds.core.DatasetBuilder) -> None:
  root = pathlib.Path(builder.data_dir_root)
  needed, free = needed_bytes(builder), free_bytes(root)
  if free < needed:
    raise errors.UserError(
      f"{builder.info.full_name} needs about {needed / 1e9:.1f} GB in {root}, where "
      f"{free / 1e9:.1f} GB are free: free some, or give another --data_dir."
    )


def _first_line(error: BaseException) -> str:
  lines = str(error).strip().splitlines()
  return f"{lines[0].rstrip('.')}." if lines else "no reason given."
