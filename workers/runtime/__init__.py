"""Starting a worker, and the parts that all workers share."""
