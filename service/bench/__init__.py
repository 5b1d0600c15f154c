"""Measuring inference side by side: contenders in processes of their own, taking turns."""
