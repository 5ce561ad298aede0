"""Many runs as one: what a sweep consists of, and how it is carried out."""
