"""The start of a worker, and the parts that all workers share."""
