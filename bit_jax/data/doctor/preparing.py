"""Preparing a data set with tensorflow-datasets, and what it needs: files, disk space, network.

Importing this imports TensorFlow (about 8 s). Only `Recipe.prepare` uses the network.

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
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from tensorflow_datasets.core.download import resource

from bit_jax.data.sources.tfds_builders import tfds
from bit_jax.runtime import errors, phrases, proxies

CONNECT_SECONDS = 4.0  # time limit for a server to accept a connection
_PORTS = {"http": 80, "https": 443, "ftp": 21}


@dataclasses.dataclass(frozen=True)
class Source:
  """Preparing one builder: what tensorflow-datasets doesn't say.

  Attributes:
    prepared_bytes: Approximate size of the prepared copy; None: that of the download.
    unpacks: Whether tfds unpacks the download to disk before it prepares the set.
    unused: Parts of the URLs in tfds' list that this builder's config doesn't fetch.
    modules: {Python module: package that provides it} that preparing needs.
    manual: {glob pattern: number of files} that must be in the manual folder first.
    manual_bytes: Their approximate size.
    steps: How to get them, in order; `{manual}` stands for the manual folder.
    accepted: {split: size} that differs from the expected one without harm.
    notes: Remarks on the set's versions and sources.
  """

  prepared_bytes: int | None = None
  unpacks: bool = True
  unused: tuple[str, ...] = ()
  modules: Mapping[str, str] = dataclasses.field(default_factory=dict)
  manual: Mapping[str, int] = dataclasses.field(default_factory=dict)
  manual_bytes: int = 0
  steps: tuple[str, ...] = ()
  accepted: Mapping[str, int] = dataclasses.field(default_factory=dict)
  notes: tuple[str, ...] = ()


_CV2, _H5PY, _SCIPY = {"cv2": "opencv-python-headless"}, {"h5py": "h5py"}, {"scipy": "scipy"}
SOURCES: Mapping[str, Source] = {
  "caltech101": Source(
    unused=("drive.google.com",),
    notes=(
      "Which images are in train and in test depends on the order in which a file system lists "
      "them, so only Google's prepared copy has the 1000 images of the paper.",
    ),
  ),
  "cats_vs_dogs": Source(unpacks=False),
  "diabetic_retinopathy_detection": Source(
    prepared_bytes=5_000_000_000,  # 88,702 JPEG files of at most 540 x 540 pixels
    modules=_CV2,
    manual={
      "train/*.jpeg": 35_126,
      "test/*.jpeg": 10_906 + 42_670,
      "sample/*.jpeg": 1,
      "trainLabels.csv": 1,
    },
    manual_bytes=80_000_000_000,
    steps=(
      "Accept the rules at https://www.kaggle.com/c/diabetic-retinopathy-detection/data and "
      "download all parts of train.zip (the fifth is easily missed) and of test.zip, sample.zip "
      "and trainLabels.csv (about 80 GB).",
      "Unpack the images into {manual}/train, {manual}/test and {manual}/sample, and "
      "trainLabels.csv into {manual}.",
    ),
  ),
  "dsprites": Source(prepared_bytes=500_000_000, unpacks=False, modules=_H5PY),
  "eurosat": Source(unused=("allBands",)),
  "imagenet2012": Source(
    unpacks=False,
    unused=("image-net.org",),  # listed with its checksums, never fetched
    manual={"ILSVRC2012_img_train.tar": 1, "ILSVRC2012_img_val.tar": 1},
    manual_bytes=147_897_477_120 + 6_744_924_160,
    steps=(
      "Register at https://image-net.org/download-images.",
      "Put ILSVRC2012_img_train.tar (147.9 GB) and ILSVRC2012_img_val.tar (6.7 GB), as they are, "
      "into {manual}.",
    ),
  ),
  "kitti": Source(
    prepared_bytes=7_000_000_000,  # the labelled half of the images
    unpacks=False,
    modules=_CV2,
    notes=("VTAB uses 3.1.0; 3.2.0 and 3.3.0 have the same examples and splits.",),
  ),
  "oxford_flowers102": Source(modules=_SCIPY),
  "oxford_iiit_pet": Source(
    notes=(
      "VTAB uses 3.*.*, tfds 4.9.10 prepares only 4.0.0: the examples and splits are the same, but "
      "12 damaged images were encoded again.",
    ),
  ),
  "patch_camelyon": Source(modules=_H5PY),
  "resisc45": Source(
    manual={"NWPU-RESISC45/*/*.jpg": 31_500},
    manual_bytes=400_000_000,
    steps=(
      "Download the rar archive (about 0.4 GB) at https://1drv.ms/u/s!AmgKYzARBl5ca3HNaHIlzp_IXjs.",
      "Unpack it in {manual}, so that the images are {manual}/NWPU-RESISC45/<class>/*.jpg.",
    ),
  ),
  "sun397": Source(
    prepared_bytes=5_000_000_000,  # 108,753 JPEG files of at most 120,000 pixels
    unpacks=False,
    modules=_CV2,
    steps=(
      "The official address, https://vision.princeton.edu/projects/2010/SUN/, no longer works "
      "(404), so get the archives elsewhere. Known mirrors are OpenDataLab/SUN397 at "
      "opendatalab.com, with the raw images, and copies on Kaggle (not those with a 50-50 split "
      "and other file names). The archives must be the original files: tfds checks their sha256.",
      "Put SUN397.tar.gz (39,077,296,924 bytes, sha256 "
      "f404130965a7ad77bed5ececc71e720ab50f3cc1e1bb257257610d38f3b928ec) and Partitions.zip "
      "(18,293,705 bytes, sha256 e3311ea5f812d4cc6faef194688343d1111f6cd6f70f2c62f393c2b8d6ba1ec9) "
      "into {manual}, under these names; tfds reads them there.",
    ),
    accepted={"train": 76_127},
    notes=(
      "tfds 4.9.10 leaves out an image that can't be decoded, so train has 76,127 images instead "
      "of VTAB's 76,128; the image is not among the 1000.",
    ),
  ),
  "svhn_cropped": Source(
    unpacks=False,
    modules=_SCIPY,
    notes=("1.3 GB of the download are extra images that the task doesn't use.",),
  ),
  "tf_flowers": Source(unpacks=False),
}


class File(NamedTuple):
  """One file that tfds downloads.

  Attributes:
    url: Its address.
    size: Size in bytes.
    present: Whether it already is in tfds' download folder or manual folder.
  """

  url: str
  size: int
  present: bool


class Recipe:
  """Preparing a set with the installed tfds: what it takes, and what of it is missing.

  Attributes:
    builder: From `tfds_builders.find_current`.
    source: What tfds doesn't say about the set.
    root: The data directory.
    manual: The folder in which tfds looks for files that it can't download.
    files: The files that tfds downloads, from its list of checksums.
    missing_manual: What the manual folder still lacks, e.g. `2 of 31500 files a/*.jpg`.
    missing_packages: The Python packages that preparing needs and that are not installed.
    download_bytes: Size of all source files, present or not.
    needed_bytes: Approximate disk space to download, unpack and prepare the set.
    free_bytes: Free disk space where the data directory is, or would be.
    absent_bytes: Size of the files that tfds has yet to download.
  """

  def __init__(self, builder: tfds.core.DatasetBuilder):
    """Examines disk and packages; uses no network."""
    self.builder, self.source = builder, SOURCES.get(builder.name, Source())
    source, self.root = self.source, pathlib.Path(builder.data_dir_root)
    self.manual = self.root / "downloads" / "manual"
    self.files = tuple(
      File(url, int(info.size), self._is_present(url, info))
      for url, info in (builder.url_infos or {}).items()
      if not any(part in url for part in source.unused)
    )
    self.missing_manual = tuple(self._missing_manual())
    self.missing_packages = tuple(
      package for m, package in source.modules.items() if importlib.util.find_spec(m) is None
    )
    self.absent_bytes = sum(f.size for f in self.files if not f.present)
    fetched = sum(f.size for f in self.files)
    self.download_bytes = fetched + source.manual_bytes
    lacking = source.manual_bytes if source.manual and self.missing_manual else 0
    unpacked = fetched if source.unpacks else 0
    prepared = self.download_bytes if source.prepared_bytes is None else source.prepared_bytes
    self.needed_bytes = self.absent_bytes + lacking + unpacked + prepared
    existing = next(p for p in (self.root, *self.root.absolute().parents) if p.exists())
    self.free_bytes = shutil.disk_usage(existing).free

  def _is_present(self, url: str, info: Any) -> bool:
    """Whether tfds reads a file from disk (see its `DownloadManager._download_or_get_cache`)."""
    if info.filename and (self.manual / info.filename).is_file():
      return True
    name, folder = resource.get_dl_fname(url, info.checksum), self.root / "downloads"
    cached = (folder / self.builder.name / name, folder / name)
    return any(p.is_file() and p.with_name(f"{p.name}.INFO").is_file() for p in cached)

  def _missing_manual(self) -> Iterator[str]:
    for pattern, wanted in self.source.manual.items():
      found = sum(1 for _ in self.manual.glob(pattern))
      if found < wanted:
        yield f"{wanted - found:,} of {wanted:,} files {pattern}" if found else pattern
    if self.source.steps and not self.source.manual:  # the addresses no longer work
      yield from (pathlib.PurePosixPath(f.url).name for f in self.files if not f.present)

  def prepare(self) -> None:
    """Downloads and prepares the set, which isn't prepared yet, after checking what it needs.

    Raises:
      UserError: A manual step, a package or disk space is missing, a server can't be reached, or
        tfds fails.
    """
    name = self.builder.info.full_name
    if fault := self._fault(name):
      raise errors.UserError(f"{fault}.")
    config = tfds.download.DownloadConfig(try_download_gcs=False)
    try:
      self.builder.download_and_prepare(download_config=config)
    except Exception as e:  # servers, archives and disks make tfds raise anything
      raise errors.UserError(f"tfds could not prepare {name} ({errors.reason(e)}).") from e
    if not self.builder.is_prepared():
      raise errors.UserError(
        f"The folder {self.builder.data_dir} contains no data set: delete it, then try again."
      )

  def _fault(self, name: str) -> str | None:
    if missing := ", ".join(self.missing_manual):
      return f"{name} can't be downloaded automatically, and {self.manual} lacks {missing}"
    if packages := self.missing_packages:
      return f"Preparing {name} needs {' and '.join(packages)}: pip install {' '.join(packages)}"
    if self.free_bytes < self.needed_bytes:
      return (
        f"{name} needs about {phrases.file_size(self.needed_bytes)} in {self.root}, but "
        f"{phrases.file_size(self.free_bytes)} are free: free some disk space, or choose another "
        f"--data_dir"
      )
    faults = unreachable(f.url for f in self.files if not f.present)
    return f"{name} can't be downloaded: {'; '.join(faults)}" if faults else None


def unreachable(urls: Iterable[str], seconds: float = CONNECT_SECONDS) -> list[str]:
  """Returns a clause on each server (or its proxy) that doesn't accept a connection.

  Args:
    urls: URLs of files; each server is tried once, and nothing is sent.
    seconds: Time limit for each.
  """
  faults: dict[proxies.Proxy | tuple[str, int], str | None] = {}
  for url in urls:
    parts, proxy = urllib.parse.urlsplit(url), proxies.find(url)
    host = parts.hostname or ""
    address = host, parts.port or _PORTS.get(parts.scheme, 80)
    if (proxy or address) in faults:
      continue
    fault = proxy.fault if proxy else None
    if not fault and (why := _refusal(*(proxy.address if proxy else address), seconds)):
      fault = f"{proxy or host} can't be reached ({why}){f': {proxy.remedy}' if proxy else ''}"
    faults[proxy or address] = fault
  return [fault for fault in faults.values() if fault]


def _refusal(host: str, port: int, seconds: float) -> str | None:
  """Returns why a connection fails, or None.

  Looking up a name has no time limit, so it runs in a thread that is abandoned after the limit.
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
