"""The Ray session and the machines: which actor gets which GPU, and how processes start and end."""
