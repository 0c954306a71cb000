"""Every setting of a run as frozen dataclasses, how YAML and the command line fill them, and the errors they raise."""
