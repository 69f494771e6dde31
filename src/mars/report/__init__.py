"""What a run was like: where its time went, what helps, a timeline, what others would do."""
