"""What became of every row: the manifest, and the page to look at."""
