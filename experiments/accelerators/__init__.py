"""The training step as compiled for GPUs and TPUs that this machine doesn't have."""
