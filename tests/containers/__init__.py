"""The images and the composition of edge/containers: checked, and run."""
