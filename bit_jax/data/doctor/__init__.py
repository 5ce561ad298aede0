"""Which data sets are ready, and what preparing the others takes."""
