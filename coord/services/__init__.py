"""The service registry: services send heartbeats, clients find the healthy ones."""
