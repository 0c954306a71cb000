"""Readers of short answers: labels, numbers, formulas, boxes, and what denies or refuses them."""
