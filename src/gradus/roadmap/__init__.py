"""The roadmap file: schema, plan, walk, report, and one file for each stage."""
