"""Sources of labelled images: each gives labels, image sizes and single images (`opening.Source`).

- arrays: scikit-learn's digits and the user's npz file.
- folder: the user's image files. `layouts` (with `tree`) scans folders, `csv_list` CSVs; both
  return a `scan.Scan`. `part_names` and `class_naming` have the rules for names.
- tfds_reader: prepared sets of tensorflow-datasets (with `tfds_builders` and `tfrecords`).
"""
