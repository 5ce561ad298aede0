"""The files of a run: its folder, logs, results, tables and figures, and the printed summary."""
