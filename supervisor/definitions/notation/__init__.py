"""Services in the notation of the definition files: what was read, written down again."""
