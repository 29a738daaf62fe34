"""Models on a device: the edge bundle, and a reference predictor that needs numpy and LiteRT only."""
