"""Rows that another row makes superfluous, wrong or a leak."""
