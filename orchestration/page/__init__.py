"""Templates and figures of HTML pages, numbers formatted as text, and progress bars."""
