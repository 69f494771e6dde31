"""Starting, finding and ending clusters that run on somebody else's engine."""
