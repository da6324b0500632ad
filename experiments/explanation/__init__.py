"""What backbones look at in images: models side by side, as pictures and as numbers."""
