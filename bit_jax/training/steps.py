"""One step of training on one device: pure functions, no pmap and no I/O."""

from typing import Any

import flax.struct
import jax
import numpy as np
import optax

from bit_jax.data import augmentation
from bit_jax.inference.example_metrics import example_metrics
from bit_jax.models import resnet_v2


class TrainState(flax.struct.PyTreeNode):
  """The state that a step updates.

  Attributes:
    step: [] int32: number of steps done.
    params: Parameter tree of `resnet_v2.ResNetV2`, float32.
    opt_state: State of the optimiser, shaped like `params`.
  """

  step: Any
  params: Any
  opt_state: Any


def create_state(params: Any, optimizer: optax.GradientTransformation) -> TrainState:
  """Returns the state before the first step, on the host, for an optimiser that starts at zero."""
  # `optimizer.init` itself would compile a program for each shape, and fill the first device.
  shapes = jax.eval_shape(optimizer.init, params)
  opt_state = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
  return TrainState(np.zeros((), np.int32), params, opt_state)


def train_step(
  state: TrainState,
  images: jax.Array,
  labels: jax.Array,
  lam: jax.Array | float,
  learning_rate: jax.Array | float,
  *,
  model: resnet_v2.ResNetV2,
  optimizer: optax.GradientTransformation,
  axis_name: str | None = None,
) -> tuple[TrainState, dict[str, jax.Array]]:
  """Applies MixUp, and takes one step of SGD on the mean softmax cross-entropy.

  Args:
    state: Before the step.
    images: [B, H, W, 3] float32 in [-1, 1]; this device's part of the batch.
    labels: [B] int32.
    lam: [] MixUp factor of the step in [0, 1]; 1 leaves the batch unchanged.
    learning_rate: [] of the step.
    model: The network.
    optimizer: Result of `optimizer.sgd`.
    axis_name: The axis over which gradients are averaged; None on one device.

  Returns:
    The state after the step, and the metrics of each example ([B] each, see
    `example_metrics`): the loss is that of the mixed batch; accuracy refers to the label of
    the image itself.
  """
  variables = resnet_v2.standardize_params(state.params)
  gradients, outputs = micro_batch_gradients(variables, images, labels, lam, model=model)
  state = update(state, gradients, learning_rate, optimizer=optimizer, axis_name=axis_name)
  return state, outputs


def micro_batch_gradients(
  variables: Any,
  images: jax.Array,
  labels: jax.Array,
  lam: jax.Array | float,
  *,
  model: resnet_v2.ResNetV2,
) -> tuple[Any, dict[str, jax.Array]]:
  """Applies MixUp to a batch, or a part with both partners, and differentiates the mean loss.

  Args:
    variables: Standardised kernels and other parameters (see `resnet_v2.standardize_params`).
    images: [B, H, W, 3] float32 in [-1, 1].
    labels: [B] int32.
    lam: [] MixUp factor in [0, 1].
    model: The network.

  Returns:
    The gradient with respect to the variables, of their dtypes, and the metrics of each example, as
    in `train_step`.
  """
  one_hot = jax.nn.one_hot(labels, model.num_classes)
  images, one_hot = augmentation.mixup(images, one_hot, lam)

  def loss_fn(variables: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
    logits, _ = model.apply(variables, images)
    loss = optax.softmax_cross_entropy(logits, one_hot)
    return loss.mean(), {**example_metrics(logits, labels), "loss": loss}

  gradients, outputs = jax.grad(loss_fn, has_aux=True)(variables)
  return gradients, outputs


def update(
  state: TrainState,
  gradients: Any,
  learning_rate: jax.Array | float,
  *,
  optimizer: optax.GradientTransformation,
  axis_name: str | None = None,
) -> TrainState:
  """Takes a step of SGD, given the gradient with respect to the standardised variables.

  Args:
    state: Before the step.
    gradients: Shaped like `resnet_v2.standardize_params(state.params)`, float32; the mean over this
      device's part of the batch.
    learning_rate: [] of the step.
    optimizer: Result of `optimizer.sgd`.
    axis_name: The axis over which gradients are averaged; None on one device.
  """
  if axis_name is not None:
    gradients = jax.lax.pmean(gradients, axis_name)
  # Linear in the gradient, so it can follow the sum over micro-batches and devices.
  _, pull_back = jax.vjp(resnet_v2.standardize_params, state.params)
  (gradients,) = pull_back(gradients)
  velocity, opt_state = optimizer.update(gradients, state.opt_state, state.params)
  params = optax.apply_updates(state.params, jax.tree.map(lambda v: -learning_rate * v, velocity))
  return TrainState(state.step + 1, params, opt_state)


def is_finite(params: Any) -> bool:
  """Returns whether every parameter is finite; on the host, where checkpoints need them."""
  return all(np.isfinite(x).all() for x in jax.tree.leaves(jax.device_get(params)))
