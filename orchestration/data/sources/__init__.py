"""One raw format a file; registry.py knows them all."""
