"""The one place where genctl writes durable files."""
