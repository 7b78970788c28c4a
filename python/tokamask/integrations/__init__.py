"""Bridges to other projects' objects; each imports its host only when used."""
