"""What the system costs and how good it is, measured; each module runs by itself."""
