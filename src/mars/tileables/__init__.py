"""What tensors and frames have in common; the class is in `tileable`."""
