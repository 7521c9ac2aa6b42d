"""Commits: document operations, the capsules that hold them, and the durable log of capsules."""
