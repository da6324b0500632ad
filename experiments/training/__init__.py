"""Training: one pure step, and the loop around it.

``config`` lists what can be set, and ``loop.fit`` runs it.
"""
