"""What every worker shares."""
