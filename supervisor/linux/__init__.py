"""One thin wrapper for each system call that Python lacks, with the kernel's name."""
