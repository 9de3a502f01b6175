"""`mps-spectro bench`: torch, a framed baseline and this package side by side, on whatever device there is."""
