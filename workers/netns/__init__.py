"""The netns worker: makes a network namespace with its link, keeps it right, removes it."""
