"""Turning any CNN into one whose convolutions are conditioned on signals."""
