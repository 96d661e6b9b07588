"""Which models are compiled, how, and where the results lie: recipes, builder, stand-in models."""
