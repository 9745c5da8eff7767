"""Masks against ground truth."""
