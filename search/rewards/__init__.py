"""Rewards: proxy training, weight sharing, zero-cost scores, tables, and costs."""
