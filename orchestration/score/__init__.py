"""`mixed-r1 score`: a file of responses in, a reward and its reason for each out; no GPU, no Ray, no run folder."""
