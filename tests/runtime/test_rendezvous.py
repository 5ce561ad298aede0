"""Processes that find each other; here, threads are the processes."""

import concurrent.futures
import http.server
import re
import socket
import threading

import pytest

from bit_jax.runtime import cluster, differences, errors, links, rendezvous


@pytest.fixture
def port():
  with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    return free.getsockname()[1]


@pytest.fixture(autouse=True)
def _short(monkeypatch):
  for name, seconds in {"_PAUSE": 0.02, "_FAREWELL": 0.5, "_REPORT": 5, "_STRANGE": 0.2}.items():
    monkeypatch.setattr(rendezvous, name, seconds)


def place(port, index, count=2):
  return cluster.Place("127.0.0.1", port, count, index)


def meet(*places):
  """Returns what each place finds, or its error, as text."""

  def attempt(one):
    try:
      return rendezvous.meet(one)
    except errors.UserError as e:
      return str(e)

  with concurrent.futures.ThreadPoolExecutor(len(places)) as pool:
    return list(pool.map(attempt, places))


def test_all_are_connected_to_the_first(port):
  (zero, hosts), (one, _), (two, same) = meet(*(place(port, i, 3) for i in range(3)))
  assert ({*zero}, {*one}, {*two}) == ({1, 2}, {0}, {0})
  assert len(hosts) == 3
  assert hosts == same
  two[0].send({"a": [1, "ä"]})
  assert zero[2].receive() == [{"a": [1, "ä"]}]
  zero[1].close()
  with pytest.raises(links.Gone):
    one[0].receive()


def test_other_numbers_of_processes_end_all(port):
  assert set(meet(place(port, 0, 2), place(port, 1, 3))) == {
    f"The processes differ: JAX_NUM_PROCESSES is 2 in process 0 and 3 in process 1 on "
    f"{socket.gethostname()}. Start every process with the same number."
  }


def test_a_number_that_is_used_twice_ends_all(port):
  for sentence in meet(place(port, 0, 3), place(port, 1, 3), place(port, 1, 3)):
    assert sentence.startswith("Two processes have JAX_PROCESS_ID=1, on ")
  for sentence in meet(place(port, 0), place(port, 0)):
    assert "Two processes have JAX_PROCESS_ID=0" in sentence


def test_a_number_beyond_the_last_ends_all(port):
  for sentence in meet(place(port, 0), place(port, 2)):
    assert "JAX_PROCESS_ID=2 is not one of 2" in sentence


def test_other_versions_or_code_end_all(port, monkeypatch):
  versions = iter(["0.10.1", "0.10.2"])
  lock = threading.Lock()

  def facts():
    with lock:
      return {"jax": next(versions), "jaxlib": "0.10.1"}

  monkeypatch.setattr(differences, "facts", facts)
  one, two = meet(place(port, 0), place(port, 1))
  assert one == two
  assert one.startswith("The processes differ: jax is 0.10.")


def test_a_missing_process_is_named_until_the_time_is_over(port, monkeypatch, capsys):
  monkeypatch.setattr(rendezvous, "_FIRST_NOTICE", 0.1)
  monkeypatch.setattr(rendezvous, "PATIENCE", 4)
  zero, one = meet(place(port, 0, 3), place(port, 1, 3))
  missing = f"waits for the others at 127.0.0.1:{port}: 2 of 3 processes are here, process 2 is"
  assert missing in zero
  assert "gives up after" in zero
  assert missing in one
  err = capsys.readouterr().err
  assert re.search(r"^Process [01] waits for the others at .* missing\. \(\d s\)$", err, re.M)
  monkeypatch.setattr(rendezvous, "PATIENCE", 0.1)
  (alone,) = meet(place(port, 1))
  assert f"waits for process 0 at 127.0.0.1:{port}, which doesn't answer there." in alone


def test_another_service_at_the_port_is_noticed(port):
  with http.server.HTTPServer(("127.0.0.1", port), http.server.BaseHTTPRequestHandler) as server:
    server.RequestHandlerClass.log_message = lambda *_: None
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    first, second = meet(place(port, 0)), meet(place(port, 1))
    server.shutdown()
    thread.join()
  assert first[0].startswith(f"Process 0 can't use the port {port} for ")
  assert "but another service" in second[0]


def test_what_differs_is_named_by_process():
  values = [{"seed": 0, "x": None}, {"seed": 1, "x": None}, {"seed": 0, "x": "a"}]
  assert differences.sentence(values) == (
    "The processes differ: seed is 0 in processes 0, 2 and 1 in process 1, x is not set in "
    "processes 0, 1 and a in process 2. Start every process with the same command, files and "
    "versions."
  )
  assert differences.sentence(values[:1] * 2) is None
  assert {"jax", "jaxlib"} < {*differences.facts()}
