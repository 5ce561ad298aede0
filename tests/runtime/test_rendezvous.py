"""Processes that find each other; here, threads are the processes."""

import concurrent.futures
import contextlib
import http.server
import json
import re
import socket
import threading
import time

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


STRANGERS = {
  "text for an index": {"index": "abc"},
  "an index beyond the last": {"index": 7},
  "process 0": {"index": 0},
  "a negative index": {"index": -1},
  "no facts": {"facts": [1]},
  "facts of another type": {"facts": {"jax": 1}},
  "a host with control characters": {"host": "\x1b[2J"},
  "a host without end": {"host": "a" * 10_000},
  "a fault from a process of other code": {"failed": "\x1b[2J", "facts": {}},
  "a fault that is no text": {"failed": [1]},
}


@pytest.mark.parametrize("line", ["infinite", "deep", "long", "alone", *STRANGERS])
def test_whoever_is_no_process_of_the_run_is_sent_away(port, line):
  hello = {"index": 1, "count": 2, "host": "a", "facts": differences.facts()}
  text = {
    "infinite": json.dumps(hello).replace("1", "1e999", 1),
    "deep": '{"a":' + "[" * 9_000,
    "long": '{"a": "' + "a" * 100_000,
    "alone": '{"failed": "Give up.", "host": "a"}',
  }.get(line) or json.dumps({**hello, **STRANGERS[line]})

  def disturb():
    with contextlib.closing(connected(port)) as stranger:
      stranger.sendall(text.encode() + b"\n")
      with contextlib.suppress(ConnectionError):
        assert stranger.recv(100) == b""  # it was closed

  with concurrent.futures.ThreadPoolExecutor(2) as pool:
    zero = pool.submit(meet, place(port, 0))
    pool.submit(disturb).result(5)
    ((others, _),), ((_, hosts),) = meet(place(port, 1)), zero.result(5)
  assert (set(others), len(hosts)) == ({0}, 2)


def connected(port):
  for _ in range(200):
    with contextlib.suppress(OSError):
      return socket.create_connection(("127.0.0.1", port), timeout=5)
    time.sleep(0.02)
  raise AssertionError("process 0 does not listen")


def test_one_that_is_here_has_nothing_more_to_say(port):
  hello = {"index": 1, "count": 3, "host": "a", "facts": differences.facts()}

  def disturb():
    with contextlib.closing(connected(port)) as admitted:
      admitted.sendall(json.dumps(hello).encode() + b"\n" + json.dumps(hello).encode() + b"\n")
      while admitted.recv(100):
        pass

  with concurrent.futures.ThreadPoolExecutor(2) as pool:
    zero = pool.submit(meet, place(port, 0, 3))
    pool.submit(disturb).result(5)
    found = meet(place(port, 1, 3), place(port, 2, 3))
    assert [set(links) for links, _ in (*found, *zero.result(5))] == [{0}, {0}, {1, 2}]


def test_what_others_say_is_printed_as_one_line(port):
  fault = "An error\nin \x1b[31mred."
  shown = "An error\\nin \\x1b[31mred."

  def report():
    connected(port).close()  # it listens
    return rendezvous._report(place(port, 1), fault)

  with concurrent.futures.ThreadPoolExecutor(2) as pool:
    zero = pool.submit(meet, place(port, 0))
    assert pool.submit(report).result(5)
    assert zero.result(5) == [f"A process on {socket.gethostname()} ended: {shown}"]
  with links.listen(port) as server, concurrent.futures.ThreadPoolExecutor(1) as pool:
    one = pool.submit(meet, place(port, 1))
    zero = links.Link(server.accept()[0])
    zero.send({"refused": fault})
    assert one.result(5) == [shown]


@pytest.mark.parametrize("answer", [{"hosts": 2}, {"hosts": ["a"]}, {"here": 1}, {"other": 1}])
def test_another_program_is_no_process_0(port, answer):
  with links.listen(port) as server, concurrent.futures.ThreadPoolExecutor(1) as pool:
    one = pool.submit(meet, place(port, 1))
    while not one.done():
      if rendezvous.select.select([server], [], [], 0.02)[0]:
        links.Link(server.accept()[0]).send(answer)
  assert "but another service" in one.result()[0]


def test_what_differs_is_named_by_process():
  values = [{"seed": 0, "x": None}, {"seed": 1, "x": None}, {"seed": 0, "x": "a"}]
  assert differences.sentence(values) == (
    "The processes differ: seed is 0 in processes 0, 2 and 1 in process 1, x is not set in "
    "processes 0, 1 and a in process 2. Start every process with the same command, files and "
    "versions."
  )
  assert differences.sentence(values[:1] * 2) is None
  assert {"jax", "jaxlib"} < {*differences.facts()}
