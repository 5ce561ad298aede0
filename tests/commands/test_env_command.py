"""`python -m bit_jax.env`: what it prints, also where something is broken."""

import json
import subprocess
import sys

import pytest
import running

from bit_jax import env
from bit_jax.runtime import cache, device_probe, installation, system

JAX = {"settings": {"jax_enable_x64": False}, "devices": {"platform": "cpu", "count": 4}}


@pytest.fixture(autouse=True)
def _quickly(monkeypatch):
  monkeypatch.setattr(device_probe, "ask", lambda seconds: JAX)


def test_json_and_text_have_the_same_facts(monkeypatch, capsys):
  monkeypatch.setenv("HTTPS_PROXY", "http://me:hunter2@proxy.test:1")
  env.main(["env", "--json"])
  found = json.loads(capsys.readouterr().out)
  assert found["jax"] == JAX
  assert found["packages"] == installation.versions()
  assert str(cache.directory()) in found["cache"]
  env.main(["env"])
  text = capsys.readouterr().out
  assert [line.split()[0] for line in text.splitlines() if line[0] != " "] == list(found)
  assert max(map(len, text.splitlines())) <= 100
  assert f"jax {installation.version('jax')}," in " ".join(text.split())
  assert "platform cpu, count 4" in text
  assert "HTTPS_PROXY=http://***@proxy.test:1" in text
  assert "hunter2" not in text + json.dumps(found)


def test_a_fact_that_cannot_be_found_leaves_the_others(monkeypatch, no_home):
  monkeypatch.setattr(system, "memory", lambda: 1 / 0)
  found = env.report()
  assert found["memory"] == "unknown (ZeroDivisionError: division by zero)"
  assert found["cache"].startswith("unknown (UserError: No cache directory found.")
  assert found["jax"] == JAX
  assert "unknown (ZeroDivisionError" in env.text(found)


def test_it_runs_where_jax_cannot_be_imported(tmp_path):
  (tmp_path / "jax.py").write_text("raise ImportError('a broken jax')")
  command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r}); "]
  command[-1] += "sys.argv = ['env']; from bit_jax import env; env.main(sys.argv)"
  path = {"PYTHONPATH": str(tmp_path), "PATH": "", "HOME": str(tmp_path)}
  done = subprocess.run(command, cwd=running.ROOT, env=path, capture_output=True, text=True)
  assert done.returncode == 0, done.stderr
  assert "error: JAX ended with status 1: ImportError: a broken jax" in done.stdout
