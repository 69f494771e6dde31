"""What tensors and frames have in common. No code here."""
