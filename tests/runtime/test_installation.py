"""Versions of packages, and variables without passwords."""

from importlib import metadata

import numpy as np
import pytest

from bit_jax.runtime import installation


def test_versions_are_those_of_declared_packages():
  found = installation.versions()
  assert found["numpy"] == np.__version__
  assert found["jaxlib"] == metadata.version("jaxlib")
  assert "bit_jax" not in found
  assert not {"ruff", "sphinx", "torch"} & found.keys()  # of development only


def test_what_every_run_needs_is_listed_when_it_is_missing(monkeypatch):
  declared = ["numpy>=2", "no-such-package>=1", 'nor-this>=1; extra == "tfds"']
  monkeypatch.setattr(metadata, "requires", lambda _: declared)
  found = installation.versions()
  assert found["no-such-package"] is None
  assert "nor-this" not in found


def test_a_checkout_that_is_not_installed_reads_its_own_file(monkeypatch):
  known = installation.versions()
  version = installation.version
  monkeypatch.setattr(
    installation, "version", lambda name: None if name == "bit_jax" else version(name)
  )
  assert installation.versions() == known


@pytest.mark.parametrize(
  ("value", "shown"),
  [
    ("http://proxy:3128", "http://proxy:3128"),
    ("http://me:secret@proxy:3128", "http://***@proxy:3128"),
    ("http://me:sec/r@e,t@proxy:3128/", "http://***@proxy:3128/"),
    ("me:secret@proxy", "***@proxy"),
    ("https://me:secret@a.test/x https://you:hidden@b.test", "https://***@b.test"),
    ("https://a.test/x?key=secret&b=1 https://b.test", "https://a.test/x?*** https://b.test"),
    ("--xla_dump_to=/tmp/x --xla_y=1", "--xla_dump_to=/tmp/x --xla_y=1"),
  ],
)
def test_no_password_is_shown(value, shown):
  assert installation.variables({"HTTPS_PROXY": value}) == {"HTTPS_PROXY": shown}


def test_only_what_a_run_depends_on_is_shown():
  given = {
    "JAX_PLATFORMS": "cpu",
    "XLA_FLAGS": "--a",
    "BIT_JAX_CACHE": "/c",
    "TFDS_DATA_DIR": "/d",
    "CUDA_VISIBLE_DEVICES": "",
    "no_proxy": "x",
    "HF_HUB_OFFLINE": "1",
    "HF_TOKEN": "secret",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "PATH": "/bin",
    "USER": "me",
    "BIT_JAX_TOKEN": "secret",
  }
  assert installation.variables(given) == {
    "BIT_JAX_CACHE": "/c",
    "BIT_JAX_TOKEN": "***",
    "CUDA_VISIBLE_DEVICES": "",
    "HF_HUB_OFFLINE": "1",
    "JAX_PLATFORMS": "cpu",
    "TFDS_DATA_DIR": "/d",
    "XLA_FLAGS": "--a",
    "no_proxy": "x",
  }
