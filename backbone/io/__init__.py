"""Files, provenance, HTML pages and the process environment."""
