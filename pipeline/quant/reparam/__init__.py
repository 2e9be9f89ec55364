"""Reparameterizations: exact rewrites of the float graph after which it quantizes better."""
