"""`mixed-r1 plan`: memory, time and batch sizes of a run, computed before anything is reserved."""
