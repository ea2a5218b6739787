"""Stand-ins for the outside world, shipped for the demo and the tests."""
