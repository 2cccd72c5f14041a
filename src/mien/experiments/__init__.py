"""Many runs: studies and searches, what they vary, and the processes that work on them."""
