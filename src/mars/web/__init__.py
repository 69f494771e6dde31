"""The page of a session, and the socket that commands such as `mars top` ask.

The page is there with `new_session(web=True)`. The socket is in a private folder, and each program
with a session has it; see `desk`.
"""
