"""The board beside the leases: notices that run out by themselves. Nothing on it ever decides who leads."""
