"""Write side and read side of one run. Does not import torch."""
