"""Where images and labels come from: arrays, folders and CSV files, tensorflow-datasets."""
