"""A small, readable engine on a real model: runs the whole product without torch."""
