"""What tfds reads for a split expression, without any data."""

import itertools

import numpy as np


def select(split_sizes, expression):
  """Returns [(split, first position, end), ...] in the order of reading.

  Args:
    split_sizes: {split: number of its examples}.
    expression: In tfds' notation, such as 'train[:800]+validation[:200]'.
  """
  import tensorflow_datasets as tfds

  def info(name, size):
    template = tfds.core.ShardedFileTemplate(
      data_dir="folder", dataset_name="set", split=name, filetype_suffix="tfrecord"
    )
    return tfds.core.SplitInfo(
      name=name, shard_lengths=[size], num_bytes=0, filename_template=template
    )

  splits = tfds.core.splits.SplitDict([info(*item) for item in split_sizes.items()])
  parts = []
  for instruction in splits[expression].file_instructions:
    (name,) = (n for n in split_sizes if f"set-{n}.tfrecord" in instruction.filename)
    parts.append((name, instruction.skip, instruction.skip + instruction.take))
  return parts


def positions(split_sizes, expression):
  """Returns [N] int64: the examples' positions where all splits lie one after the other."""
  starts = [0, *itertools.accumulate(split_sizes.values())]
  offsets = dict(zip(split_sizes, starts, strict=False))
  parts = select(split_sizes, expression)
  return np.concatenate([offsets[s] + np.arange(start, end) for s, start, end in parts])
