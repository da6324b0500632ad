"""What a backbone looks at in an image: attention rollout, Grad-CAM, principal components, and similar images."""
