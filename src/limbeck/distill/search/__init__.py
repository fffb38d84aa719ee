"""The search for a student's architecture in a run: trials, their study, and what was found."""
