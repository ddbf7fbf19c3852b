"""Services in the notation of the definition files: the reverse of reading them."""
