"""What a call has come to, kept where another worker, or this one after a restart, finds it."""
