"""What the next module looks at while it is imported; the program sets it before."""

FAST = False
RATE = 1
