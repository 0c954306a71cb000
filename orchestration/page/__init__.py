"""The parts of the HTML pages and of the tables in the terminal."""
