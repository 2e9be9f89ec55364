"""How much an error of a product or of a unit matters to what the network says."""
