"""Conversations written by a teacher: what is asked for, how answers are judged, and the walk over all rows."""
