"""The management commands of `coord.integrations.django`."""
