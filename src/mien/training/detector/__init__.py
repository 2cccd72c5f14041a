"""Training of mien's own face detector: pictures, the teacher's labels, scenes, the network, its export."""
