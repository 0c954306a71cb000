"""Scores of held-out samples: records, intervals, presets, tables, pages and files; no engine and no Ray in here."""
