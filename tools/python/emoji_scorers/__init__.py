"""The small models that stand in for LLaVA, BERT and CLIP on a laptop."""
