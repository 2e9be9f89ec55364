"""Files and folders: what they contain, and how they come to be whole."""
