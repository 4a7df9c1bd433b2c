"""Integrations of frameworks: one module for each, which imports its framework."""
