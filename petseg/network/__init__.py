"""The network in Keras, and its weights."""
