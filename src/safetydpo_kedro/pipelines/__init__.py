"""The pipelines of the project, one folder each."""
