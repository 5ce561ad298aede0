"""Tests of bit_jax.data.doctor.readiness and preparing: slow, as they import TensorFlow."""

import contextlib
import dataclasses
import hashlib
import http.server
import importlib.util
import io
import pathlib
import shutil
import socket
import threading

import numpy as np
import pytest
from PIL import Image

from bit_jax.data import datasets, vtab
from bit_jax.runtime import errors

pytestmark = pytest.mark.slow

CONTENT = bytes(range(20))  # of the archive that the generated set is made from: labels times 10
ARCHIVE = "archive.bin"
# tfds' lists of checksums, in bytes, without what this project's configs don't fetch.
DOWNLOADS = {
  "vtab/caltech101": 137_414_764,
  "vtab/cifar100": 168_513_733,
  "vtab/clevr-count": 19_021_600_724,
  "vtab/dmlab": 3_017_022_789,
  "vtab/dsprites-xpos": 28_024_106,
  "vtab/dtd": 625_239_812,
  "vtab/eurosat": 94_280_567,
  "vtab/kitti-distance": 12_569_945_557 + 5_601_213 + 63_794,
  "vtab/oxford_iiit_pet": 811_092_049,
  "vtab/sun397": 39_077_296_924 + 18_293_705,
  "vtab/svhn": 1_575_594_780,
  "cifar10": 170_052_171,
  "imagenet2012": 154_642_401_280,
}


@pytest.fixture(scope="module")
def doctor():
  from bit_jax.data.doctor import readiness as module

  return module


@pytest.fixture(scope="module")
def preparing(doctor):
  return doctor.preparing


@pytest.fixture(scope="module")
def builders(doctor):
  return doctor.tfds_builders


@pytest.fixture
def no_network(monkeypatch):
  def refuse(*arguments, **_):
    raise AssertionError(f"the network was asked: {arguments}")

  monkeypatch.setattr(socket.socket, "connect", refuse)
  monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
  monkeypatch.setenv("no_proxy", "127.0.0.1")
  monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def png(i):
  file = io.BytesIO()
  Image.fromarray(np.full((4, 5, 3), i, np.uint8)).save(file, "png")
  return file.getvalue()


@pytest.fixture(scope="module")
def fake(doctor):
  """A builder of 20 PNG images whose archive is fetched from an address that tests choose."""
  import tensorflow_datasets as tfds

  class DoctorFake(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.2.3")
    url = "http://127.0.0.1:1/archive.bin"
    url_infos = None

    def _info(self):
      objects = {"pixel_coords": tfds.features.Tensor(shape=(3,), dtype=np.float32)}
      features = {
        "image": tfds.features.Image(shape=(4, 5, 3), encoding_format="png"),
        "label": tfds.features.ClassLabel(names=["ant", "bee"]),
        "objects": tfds.features.Sequence(objects),
      }
      return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
      labels = pathlib.Path(dl_manager.download(self.url)).read_bytes()
      return {"train": self._generate_examples(labels)}

    def _generate_examples(self, labels):
      for i, label in enumerate(labels):
        objects = [{"pixel_coords": [0.0, 0.0, 7.9 + 0.25 * (i % 9)]}] * 2
        yield i, {"image": io.BytesIO(png(i)), "label": label % 2, "objects": objects}

  return DoctorFake


def place(fake, url, content=CONTENT):
  """Lets the generated set come from `url`, expected to hold `CONTENT`."""
  from tensorflow_datasets.core.download import checksums

  fake.url = url
  digest = hashlib.sha256(CONTENT).hexdigest()
  fake.url_infos = {url: checksums.UrlInfo(len(content), digest, ARCHIVE)}


@pytest.fixture
def served(fake, tmp_path):
  """The archive on a server of this machine; yields the paths that were asked for."""
  folder, asked = tmp_path / "served", []
  folder.mkdir()
  (folder / ARCHIVE).write_bytes(CONTENT)

  class Handler(http.server.SimpleHTTPRequestHandler):
    def __init__(self, *arguments, **options):
      super().__init__(*arguments, directory=str(folder), **options)

    def log_message(self, *_):
      asked.append(self.path)

  with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    place(fake, f"http://127.0.0.1:{server.server_address[1]}/{ARCHIVE}")
    yield asked
    server.shutdown()
    thread.join()


@pytest.fixture
def named(monkeypatch):
  """Makes the generated set known to the tables as 'fake', and as 'twin' for a second name."""
  find = datasets.find
  base = find("cifar10", "final")

  def find_fake(name, protocol):
    if name not in ("fake", "twin"):
      return find(name, protocol)
    sizes = {"num_train": 15, "num_test": 5, "num_classes": 2}
    splits = {"train_split": "train[:15]", "test_split": "train[15:]"}
    return dataclasses.replace(base, name=name, tfds_name="doctor_fake", **sizes, **splits)

  monkeypatch.setattr(datasets, "find", find_fake)


def prepared(fake, folder, **options):
  """Returns the generated set, prepared in `folder` from a file in the manual folder."""
  import tensorflow_datasets as tfds

  place(fake, "http://127.0.0.1:1/archive.bin")
  manual = pathlib.Path(folder) / "downloads" / "manual"
  manual.mkdir(parents=True, exist_ok=True)
  (manual / ARCHIVE).write_bytes(CONTENT)
  builder = tfds.builder("doctor_fake", data_dir=str(folder), try_gcs=False)
  builder.download_and_prepare(download_config=tfds.download.DownloadConfig(**options))
  return builder


def order():
  """Returns tfds' order of the generated set: ascending md5 of split name and key."""
  return sorted(range(20), key=lambda i: hashlib.md5(f"train{i}".encode()).digest())


def expected_digest(indices, label):
  parts = (png(i) + int(label(i)).to_bytes(8, "little") for i in indices)
  return hashlib.sha256(b"".join(parts)).hexdigest()


@pytest.mark.parametrize("shards", [1, 3])
def test_digest_is_of_bytes_and_labels_in_order_whatever_the_shards(doctor, fake, tmp_path, shards):
  builder = prepared(fake, tmp_path, num_shards=shards)
  assert builder.info.splits["train"].num_shards == shards
  chosen = order()[:6] + order()[9:13]
  found = doctor.digest(builder, "train[:6]+train[9:13]", "label")
  assert found == expected_digest(chosen, lambda i: i % 2)
  assert found != expected_digest(chosen[::-1], lambda i: i % 2)


def test_digest_takes_the_derived_label(doctor, fake, tmp_path):
  builder = prepared(fake, tmp_path)
  bins = [0, 1, 1, 2, 2, 3, 3, 4, 4]  # of the depths 7.9, 8.15, ..., 9.9
  found = doctor.digest(builder, "train", "clevr-distance")
  assert found == expected_digest(order(), lambda i: bins[i % 9])


def test_digest_of_a_damaged_copy_is_refused(doctor, fake, tmp_path):
  builder = prepared(fake, tmp_path)
  (record,) = pathlib.Path(builder.data_dir).glob("*.tfrecord*")
  record.write_bytes(record.read_bytes()[:-10])
  with pytest.raises(errors.UserError, match="can't be read") as caught:
    doctor.digest(builder, "train", "label")
  assert str(builder.data_dir) in str(caught.value)
  record.unlink()
  with pytest.raises(errors.UserError, match="can't be read"):
    doctor.digest(builder, "train", "label")


def test_a_prepared_set_shows_its_place_version_sizes_and_hash(
  doctor, fake, named, no_network, tmp_path, capsys
):
  builder = prepared(fake, tmp_path)
  capsys.readouterr()
  doctor.report(["fake"], "final", str(tmp_path))
  out = capsys.readouterr().out
  assert out.splitlines()[2].split()[:3] == ["fake", "1.2.3", "ok"]
  assert f"fake: 1.2.3 in {builder.data_dir}" in out
  value = expected_digest(order()[:15], lambda i: i % 2)
  assert f"examples of train[:15]: {value}" in out


def test_differing_sizes_are_named(doctor, fake, named, tmp_path):
  prepared(fake, tmp_path)
  spec = dataclasses.replace(
    datasets.find("cifar10", "final"),
    name="fake",
    tfds_name="doctor_fake",
    num_train=21,
    test_split="validation",
  )
  finding = doctor.examine(spec, str(tmp_path))
  assert finding.differing == (
    "train has 20 examples, expected 21",
    "validation is missing, expected 10,000",
  )
  assert "differ" in doctor.table_line(finding, 5)
  lines = list(doctor.detail_lines(finding, None))
  assert "  differs: train has 20 examples, expected 21" in lines
  assert "  differs: validation is missing, expected 10,000" in lines


def test_a_harmless_difference_is_accepted(doctor, fake, preparing, tmp_path, monkeypatch):
  prepared(fake, tmp_path)
  sizes = {"train_split": "train", "num_train": 21, "test_split": "train", "num_test": 21}
  spec = dataclasses.replace(datasets.find("cifar10", "final"), tfds_name="doctor_fake", **sizes)
  assert len(doctor.examine(spec, str(tmp_path)).differing) == 1
  source = preparing.Source(accepted={"train": 20})
  monkeypatch.setattr(preparing, "SOURCES", {"doctor_fake": source})
  assert doctor.examine(spec, str(tmp_path)).differing == ()


def test_another_version_is_used_and_told(doctor, fake, named, tmp_path):
  folder = pathlib.Path(prepared(fake, tmp_path).data_dir)
  info = folder / "dataset_info.json"
  info.write_text(info.read_text().replace("1.2.3", "1.0.0"))
  folder.rename(folder.with_name("1.0.0"))
  finding = doctor.examine(datasets.find("fake", "final"), str(tmp_path))
  assert (finding.prepared, finding.version, finding.differing) == (True, "1.0.0", ())
  lines = list(doctor.detail_lines(finding, None))
  assert any("prepares 1.2.3" in line for line in lines)
  assert expected_digest(order()[:15], lambda i: i % 2) in lines[2]


@pytest.mark.parametrize("protocol", datasets.PROTOCOLS)
def test_every_set_is_examined_without_network_or_data(doctor, no_network, tmp_path, protocol):
  names = [n for n in datasets.NAMES if n not in ("digits", "npz", "folder")]
  assert len(names) == 26
  for name in names:
    finding = doctor.examine(datasets.find(name, protocol), str(tmp_path / "none"))
    assert not finding.prepared
    assert finding.recipe.download_bytes == DOWNLOADS.get(name, finding.recipe.download_bytes)
    assert finding.needed_bytes > 0.9 * finding.recipe.download_bytes
    assert finding.recipe.free_bytes == pytest.approx(shutil.disk_usage(tmp_path).free, rel=0.1)
    text = "\n".join(doctor.detail_lines(finding, "a b"))
    assert str(tmp_path / "none" / finding.spec.tfds_name / finding.version) in text
    assert f"python -m bit_jax.data doctor {name} --download --data_dir='a b'" in text
  assert not (tmp_path / "none").exists()


def test_only_four_builders_want_hands(doctor, preparing, tmp_path):
  manual = tmp_path / "downloads" / "manual"
  wanting = {}
  for task in (*vtab.TASKS, "imagenet2012"):
    name = f"vtab/{task}" if task in vtab.TASKS else task
    finding = doctor.examine(datasets.find(name, "final"), str(tmp_path))
    if finding.recipe.missing_manual:
      wanting[task] = "\n".join(doctor.detail_lines(finding, None))
  assert set(wanting) == {"sun397", "resisc45", "diabetic_retinopathy", "imagenet2012"}
  assert all(str(manual) in text for text in wanting.values())
  assert "f404130965a7ad77bed5ececc71e720ab50f3cc1e1bb257257610d38f3b928ec" in wanting["sun397"]
  assert "vision.princeton.edu" in wanting["sun397"]
  assert f"{manual}/NWPU-RESISC45/<class>/*.jpg" in wanting["resisc45"]
  assert "fifth" in wanting["diabetic_retinopathy"]
  assert "ILSVRC2012_img_train.tar" in wanting["imagenet2012"]


def test_what_is_there_already_by_hand_is_counted(preparing, builders, tmp_path):
  manual = tmp_path / "downloads" / "manual"
  (manual / "NWPU-RESISC45" / "beach").mkdir(parents=True)
  for i in range(3):
    (manual / "NWPU-RESISC45" / "beach" / f"beach_{i}.jpg").touch()
  (manual / "ILSVRC2012_img_val.tar").touch()
  (manual / "Partitions.zip").touch()
  for tfds_name, missing in (
    ("resisc45", ("31,497 of 31,500 files NWPU-RESISC45/*/*.jpg",)),
    ("imagenet2012", ("ILSVRC2012_img_train.tar",)),
    ("sun397/tfds", ("SUN397.tar.gz",)),
  ):
    builder = builders.find_current(tfds_name, str(tmp_path))
    assert preparing.Recipe(builder).missing_manual == missing
    with pytest.raises(errors.UserError, match="lacks") as caught:
      preparing.Recipe(builder).prepare()
    assert missing[0] in str(caught.value)


def test_tfds_list_of_sun397_is_the_one_its_steps_name(preparing, builders, tmp_path):
  builder = builders.find_current("sun397/tfds", str(tmp_path))
  steps = " ".join(preparing.Recipe(builder).source.steps)
  for info in builder.url_infos.values():
    assert info.filename in steps
    assert info.checksum in steps
    assert f"{int(info.size):,} bytes" in steps


def test_without_a_home_folder_a_place_has_to_be_given(doctor, no_home, monkeypatch):
  monkeypatch.setattr(doctor.tfds.core.constants, "DATA_DIR", "~/tensorflow_datasets")
  with pytest.raises(errors.UserError, match=r"no home folder .* --data_dir=DIR"):
    doctor.download(["cifar10"], "final", None)
  lines = list(doctor.detail_lines(doctor.examine(datasets.find("cifar10", "final")), None))
  assert "  next: python -m bit_jax.data doctor cifar10 --download --data_dir=DIR" in lines


def test_download_prepares_a_set_from_its_server(doctor, fake, named, served, tmp_path, capsys):
  assert doctor.download(["fake", "twin"], "final", str(tmp_path)) == {}
  assert len(served) == 1
  finding = doctor.examine(datasets.find("fake", "final"), str(tmp_path))
  assert finding.prepared
  assert finding.builder.info.splits["train"].num_examples == 20
  capsys.readouterr()
  assert doctor.download(["fake"], "final", str(tmp_path)) == {}
  assert "already prepared" in capsys.readouterr().out
  assert len(served) == 1


def test_a_downloaded_file_is_not_needed_twice(preparing, builders, fake, served, tmp_path):
  builder = builders.find_current("doctor_fake", str(tmp_path))
  before = preparing.Recipe(builder).needed_bytes
  preparing.Recipe(builder).prepare()
  assert [f.present for f in preparing.Recipe(builder).files] == [True]
  assert preparing.Recipe(builder).needed_bytes == before - len(CONTENT)
  shutil.rmtree(builder.data_dir)
  preparing.Recipe(builders.find_current("doctor_fake", str(tmp_path))).prepare()
  assert len(served) == 1


def test_a_file_in_the_manual_folder_serves_without_network(
  preparing, builders, fake, no_network, tmp_path
):
  place(fake, "http://127.0.0.1:1/archive.bin")
  manual = tmp_path / "downloads" / "manual"
  manual.mkdir(parents=True)
  (manual / ARCHIVE).write_bytes(CONTENT)
  preparing.Recipe(builders.find_current("doctor_fake", str(tmp_path))).prepare()
  assert builders.find_current("doctor_fake", str(tmp_path)).is_prepared()


def test_a_wrong_file_in_the_manual_folder_is_refused(preparing, builders, fake, tmp_path):
  place(fake, "http://127.0.0.1:1/archive.bin")
  manual = tmp_path / "downloads" / "manual"
  manual.mkdir(parents=True)
  (manual / ARCHIVE).write_bytes(b"another archive")
  with pytest.raises(errors.UserError, match="NonMatchingChecksumError") as caught:
    preparing.Recipe(builders.find_current("doctor_fake", str(tmp_path))).prepare()
  assert "\n" not in str(caught.value)


def test_a_server_that_is_not_there_is_named(preparing, builders, fake, tmp_path):
  with contextlib.closing(socket.socket()) as unused:
    unused.bind(("127.0.0.1", 0))  # bound, and not listening: a connection is refused
    place(fake, f"http://127.0.0.1:{unused.getsockname()[1]}/{ARCHIVE}")
    with pytest.raises(errors.UserError, match=r"127\.0\.0\.1 can't be reached \(.*refused"):
      preparing.Recipe(builders.find_current("doctor_fake", str(tmp_path))).prepare()


def test_silence_is_waited_for_only_so_long(preparing, monkeypatch):
  released = threading.Event()

  def connect(*_, **__):
    released.wait()
    raise OSError("too late")

  monkeypatch.setattr(socket, "create_connection", connect)
  faults = preparing.unreachable(["https://a.example/x", "https://a.example/y"], 0.1)
  released.set()
  assert faults == ["a.example can't be reached (no answer within 0.1 s)"]


def test_a_proxy_is_asked_in_place_of_the_server(preparing, monkeypatch):
  asked = []

  def connect(address, timeout):
    asked.append(address)
    raise OSError("no way")

  monkeypatch.setattr(socket, "create_connection", connect)
  monkeypatch.setenv("https_proxy", "http://me:secret@proxy.example:3128")
  assert preparing.unreachable(["https://a.example/x", "https://a.example/y"]) == [
    "the proxy http://proxy.example:3128 (from https_proxy) can't be reached (no way): correct "
    "https_proxy (http://USER:PASSWORD@HOST:PORT), unset it, or add a.example to NO_PROXY"
  ]
  assert asked == [("proxy.example", 3128)]


def test_a_proxy_that_cannot_be_used_is_named(preparing, no_network, monkeypatch):
  monkeypatch.setenv("ALL_PROXY", "socks5h://localhost:1080")
  monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
  (fault,) = preparing.unreachable(["https://a.example/x", "https://a.example/y"])
  assert fault.startswith("the proxy socks5h://localhost:1080 (from ALL_PROXY) needs a package")


def test_a_file_that_the_server_lacks_stops_this_set_alone(
  doctor, fake, named, served, tmp_path, capsys
):
  place(fake, fake.url.replace(ARCHIVE, "absent.bin"))
  failed = doctor.download(["vtab/resisc45", "fake", "twin"], "final", str(tmp_path))
  assert list(failed) == ["vtab/resisc45", "fake", "twin"]
  assert "HTTP code: 404" in failed["fake"]
  assert failed["twin"] == failed["fake"]
  assert capsys.readouterr().err.count("error: ") == 2


def test_too_little_disk_is_noticed_first(doctor, fake, named, served, tmp_path, monkeypatch):
  usage = shutil.disk_usage(tmp_path)._replace(free=40)  # bytes; 3 x 20 are needed
  monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
  finding = doctor.examine(datasets.find("fake", "final"), str(tmp_path))
  assert (finding.needed_bytes, finding.recipe.free_bytes) == (60, 40)
  assert "too little" in doctor.table_line(finding, 5)
  failed = doctor.download(["fake"], "final", str(tmp_path))
  assert f"needs about 60 bytes in {tmp_path}, but 40 bytes are free" in failed["fake"]
  assert served == []


def test_a_missing_package_is_noticed_first(
  preparing, builders, fake, doctor, named, tmp_path, monkeypatch
):
  source = preparing.Source(modules={"json": "json", "no_such_module": "no-such-package"})
  monkeypatch.setattr(preparing, "SOURCES", {"doctor_fake": source})
  with pytest.raises(errors.UserError, match="needs no-such-package: pip install no-such-package"):
    preparing.Recipe(builders.find_current("doctor_fake", str(tmp_path))).prepare()
  finding = doctor.examine(datasets.find("fake", "final"), str(tmp_path))
  assert "  first: pip install no-such-package" in list(doctor.detail_lines(finding, None))


def test_a_folder_in_the_way_is_named(preparing, builders, fake, served, tmp_path):
  builder = builders.find_current("doctor_fake", str(tmp_path))
  pathlib.Path(builder.data_dir).mkdir(parents=True)
  with pytest.raises(errors.UserError, match="contains no data set"):
    preparing.Recipe(builder).prepare()


def test_a_damaged_description_leaves_the_other_sets_readable(doctor, tmp_path, capsys):
  folder = tmp_path / "cifar10" / "3.0.2"
  folder.mkdir(parents=True)
  (tmp_path / "dtd" / "3.0.1").mkdir(parents=True)
  (folder / "dataset_info.json").write_text("{")
  doctor.report(["cifar10", "vtab/dtd"], "final", str(tmp_path))
  out = capsys.readouterr().out
  assert [line.split()[:2] for line in out.splitlines()[2:4]] == [
    ["cifar10", "damaged"],
    ["vtab/dtd", "no"],
  ]
  assert f"{tmp_path / 'dtd' / '3.0.1'} contains no data set: delete it" in out
  assert f"cifar10: The prepared copy of cifar10 in {tmp_path} is damaged" in out
  failed = doctor.download(["cifar10"], "final", str(tmp_path))
  assert "is damaged" in failed["cifar10"]


def test_mistaken_places_and_names(doctor, preparing, builders, tmp_path):
  (tmp_path / "file").touch()
  for function in (doctor.report, doctor.download):
    with pytest.raises(errors.UserError, match="is a file"):
      function(["cifar10"], "final", str(tmp_path / "file"))
  with pytest.raises(errors.UserError, match="no data set 'cifar1000'"):
    builders.find_current("cifar1000", str(tmp_path))


def stored(folder, pattern):
  """Returns [(encoded image, label)] of all records of a prepared set, read without tfds."""
  import tensorflow as tf

  files = [str(path) for path in sorted(folder.glob(pattern))]
  examples = map(tf.train.Example.FromString, tf.data.TFRecordDataset(files).as_numpy_iterator())
  return [
    (f["image"].bytes_list.value[0], f["label"].int64_list.value[0])
    for f in (example.features.feature for example in examples)
  ]


def test_cifar100_as_a_vtab_task(doctor, no_network, tfds_dir):
  finding = doctor.examine(datasets.find("vtab/cifar100", "select"), str(tfds_dir))
  assert (finding.prepared, finding.version, finding.differing) == (True, "3.0.2", ())
  records = stored(pathlib.Path(finding.builder.data_dir), "cifar100-train.tfrecord*")
  parts = (image + k.to_bytes(8, "little") for image, k in records[:800] + records[45000:45200])
  value = hashlib.sha256(b"".join(parts)).hexdigest()
  (line,) = (s for s in doctor.detail_lines(finding, None) if "sha256" in s)
  assert line.endswith(f"sha256 of the 1,000 examples of train[:800]+train[45000:45200]: {value}")
