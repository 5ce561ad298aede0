"""What a run leaves in its folder: records, logs, tables and figures."""
