"""The Flower app of a fleet; the code is edge_far.fleet."""
