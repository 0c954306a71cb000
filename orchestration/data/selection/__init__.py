"""Which of the rows that fit are written."""
