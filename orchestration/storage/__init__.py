"""What a run keeps on disk: its folder, checkpoints, locks and the log of faults."""
