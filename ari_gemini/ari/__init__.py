"""Door: Asterisk control, through ARI (the Asterisk REST Interface) and its event WebSocket."""
