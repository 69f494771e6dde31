"""The page that shows a session while it runs; off unless `new_session(web=True)` asks for it."""
