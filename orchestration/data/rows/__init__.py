"""The rows of the data engine: records, reasons for rejection, chunk files, worker processes."""
