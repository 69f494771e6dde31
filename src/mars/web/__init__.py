"""The page that shows a session while it runs; off unless `new_session(web=True)` asks for it.

What the page shows, `mars top`, `mars calls` and `mars logs` ask for through `desk`: a socket in a
private folder, which each program with a session has.
"""
