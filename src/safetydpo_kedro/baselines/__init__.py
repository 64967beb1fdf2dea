"""Other ways to make a model safe, which experts and merges are compared with."""
