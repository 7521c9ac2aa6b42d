"""The gate and the swap: how a verified generation becomes the active one."""
