"""What tests of the whole service share: its simulated neighbours, and a clock that does not wait."""
