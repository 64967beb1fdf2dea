"""Importers of published prompt sets into the project's own tables."""
