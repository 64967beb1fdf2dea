"""Prompt pairs: who writes them, and how they are split without a leak."""
