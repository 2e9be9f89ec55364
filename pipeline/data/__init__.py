"""Photos in: folders, labels, preprocessing, and the digits of the demo."""
