"""Images in, results out: from a trained or published model to what it sees in photographs."""
