"""Networks: operations, cells, backbones, classifiers, and their weights."""
