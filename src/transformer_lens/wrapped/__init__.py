"""The wrapped host: a transformers model as it is, seen through hook points under the names people know."""
