"""What a machine, or every machine of a job, offers to a run: each finding is ok, a warning or an error, and says how to mend it."""
