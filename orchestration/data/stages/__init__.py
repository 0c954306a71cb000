"""How a stage runs: which code decides its rows, and what takes their chunks through it."""
