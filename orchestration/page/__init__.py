"""Templates and figures of HTML pages, tables and numbers for the terminal."""
