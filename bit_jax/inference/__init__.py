"""Networks at work: evaluation, predictions, features."""
