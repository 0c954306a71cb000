"""A run folder read back: tables for the terminal, one page for the browser."""
