"""Which actor stands on which machine and GPU."""
