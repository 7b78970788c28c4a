"""Modules that take the place of other libraries: change the import, keep the code."""
