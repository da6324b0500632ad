"""What is told of predictions: lines, pictures, JSON, and pictures beside the truth."""
