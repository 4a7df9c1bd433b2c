"""The subcommands of `coord`, except `coord run`."""
