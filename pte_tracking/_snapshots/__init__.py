"""One state of a training: made of plain values, kept in a file, checked, and read again."""
