"""Masks as they lie on disk: their record, their folder, and what is told of all of them."""
