"""Data and models to try pipelines with; they are in the images too."""
