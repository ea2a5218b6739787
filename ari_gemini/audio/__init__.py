"""Sound, without a loop or a clock."""
