"""The whole run as one frozen record: a file for each group of settings, and `experiment`, which holds them all."""
