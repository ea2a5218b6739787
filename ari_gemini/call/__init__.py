"""One phone call, from ring to hangup."""
