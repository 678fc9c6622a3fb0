"""Cost of a network: mult-adds, parameters, activations, memory."""
