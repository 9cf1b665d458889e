"""Labels in plain words -> prompts -> texts."""
