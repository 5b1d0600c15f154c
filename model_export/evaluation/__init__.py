"""Accuracy of networks on a split, and comparisons of two networks on the same videos.

listing ──> views (`reading`) ──> logits (`scorers`) ──> predictions ──> accuracy, comparison

Examples are read and views are averaged as the service does it, so the accuracy is that of the served
network.
"""
