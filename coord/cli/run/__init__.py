"""`coord run`: runs a command for as long as this process is the leader of a role."""
