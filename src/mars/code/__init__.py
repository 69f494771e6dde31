"""How the program's own code travels: modules, functions and classes, and the world they form."""
