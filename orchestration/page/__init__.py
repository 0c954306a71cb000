"""Templates and figures of HTML pages, and numbers formatted as text."""
