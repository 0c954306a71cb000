"""Ways to hold one policy on several ranks."""
