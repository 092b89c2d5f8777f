"""Front ends and the objects that they own."""
