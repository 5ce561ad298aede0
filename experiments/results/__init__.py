"""From run folders to tables, figures and a report: what `python -m experiments.report` does."""
