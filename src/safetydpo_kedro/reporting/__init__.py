"""What people look at: tables, charts, image grids and the summary at the end of a run."""
