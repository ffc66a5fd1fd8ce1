"""Learning where to look: the autoencoder (A3), imitation (C1 and teachers), reinforcement (Eq. 8); each a generator of steps."""
