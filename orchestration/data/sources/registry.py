"""tmp."""

from orchestration.data.sources.drawn import DrawnAdapter


def make_adapter(name):
    return DrawnAdapter()


def describe():
    return ""
