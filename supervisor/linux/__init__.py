"""Thin wrappers for system calls that Python lacks, with the kernel's names."""
