"""`mixed-r1 evaluate`: scores of a checkpoint on a dataset, as tables, a page and files for other toolkits."""
