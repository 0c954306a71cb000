"""The report of a build: counts of all rows, the manifest, and the page."""
