"""Where service records are kept. `protocol.py` says what a keeper must do; `coord/urls.py` alone picks one."""
