"""A node's way to a verified generation: trust, plan, fetch, rebuild, verify."""
