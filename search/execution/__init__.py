"""Where trials run: in this process, in local workers, on a Ray cluster."""
