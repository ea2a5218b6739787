"""What the model may do: its tools, each one declared, checked, limited in time and answered."""
