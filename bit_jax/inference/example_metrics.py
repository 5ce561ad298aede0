"""The metrics of each example; without clu, which steps and benchmarks then don't need."""

import jax
import jax.numpy as jnp
import optax


def example_metrics(logits: jax.Array, labels: jax.Array) -> dict[str, jax.Array]:
  """Returns the metrics of each example.

  Args:
    logits: [B, C] float32.
    labels: [B] integer in [0, C).

  Returns:
    'loss', 'top1' and 'top5': [B] float32 each; the last two are 0 or 1. Of equal logits the first
    class counts as the highest, as in argmax; NaN is never correct.
  """
  loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
  own = jnp.take_along_axis(logits, labels[:, None], axis=1)
  earlier = jnp.arange(logits.shape[1]) < labels[:, None]
  ahead = jnp.sum(~(logits <= own) | ((logits == own) & earlier), axis=1)
  return {
    "loss": loss,
    "top1": (ahead < 1).astype(jnp.float32),
    "top5": (ahead < 5).astype(jnp.float32),
  }
