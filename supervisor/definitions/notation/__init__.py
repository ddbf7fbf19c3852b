"""Services in the notation of the definition files: read once, written down again."""
