"""The networks that the entries are built of."""
