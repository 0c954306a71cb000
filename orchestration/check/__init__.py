"""`mixed-r1 check`: prove on the machines of a run, before it begins, that its parts agree."""
