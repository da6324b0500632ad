"""Training: one pure step, and the loop around it.

``config`` says what can be set, ``loop.fit`` runs it.
"""
