"""What the service says about itself: logs and the latency timeline."""
