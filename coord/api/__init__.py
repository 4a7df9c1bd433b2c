"""The classes and functions that users of coord hold."""
