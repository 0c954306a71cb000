"""A job and the machine it runs on: what it leaves behind, what it listens on, how much room it takes."""
