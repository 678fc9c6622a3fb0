"""The search itself: driver, storage, results, re-evaluation."""
