"""Training of the driving model that comes with the project: never for a car on a road.

Read in this order: `outputs` (what the network says, and how truth is laid out), `network`,
`losses`, `clips` (pictures and truth out of the procedural world), `loop`, `export`, `evaluate`.
PyTorch (extra `train`) is needed by all but `outputs`, `clips` and `metrics`.
"""
