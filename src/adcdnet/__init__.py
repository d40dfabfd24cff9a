"""ADCD-Net."""
