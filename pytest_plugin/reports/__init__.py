"""What a test session writes for others to read: one module a format."""
