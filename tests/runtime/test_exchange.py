"""What processes tell each other; here, connections stand for the others."""

from bit_jax.runtime import cluster, exchange


def test_a_process_may_be_lost_while_values_are_sent(connection):
  one, other_end = connection
  here = exchange.Exchange(cluster.Place("127.0.0.1", 1, 3, 0), print, print)

  class Lost:
    def send(self, message):
      here._links.pop(1)  # as the thread that watches does

  here._links = {1: Lost(), 2: one}
  for index in range(3):
    here._take(1, index, index)
  assert here._gathered.get_nowait() == [0, 1, 2]
  assert other_end.receive() == [{"gathered": [0, 1, 2]}]
