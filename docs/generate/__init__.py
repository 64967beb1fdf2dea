"""Makes the reference of the documentation site from the project itself, when the site is built."""
