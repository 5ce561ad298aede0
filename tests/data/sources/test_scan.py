"""Tests of bit_jax.data.sources.scan."""

from bit_jax.data.sources import scan


def test_by_digest_is_an_order_of_its_own_for_each_salt():
  listed = [f"a/{i}.png" for i in range(50)]
  first, second = scan.by_digest(listed), scan.by_digest(listed, "salt")
  assert sorted(first) == sorted(second) == list(range(50))
  assert first != second
