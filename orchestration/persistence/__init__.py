"""What a run keeps on disk: its folder, its checkpoints, and whether it is over."""
