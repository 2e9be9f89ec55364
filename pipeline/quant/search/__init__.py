"""Searching quantizer parameters: candidates, objectives, and one engine that scores them."""
