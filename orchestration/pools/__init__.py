"""Awaitable clients of the actors: decisions live here, work in the actors."""
