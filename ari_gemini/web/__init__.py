"""What operators and their machines ask over HTTP."""
