"""The main job: files and a teacher in, a small student and an honest report out."""
