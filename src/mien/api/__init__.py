"""The public functions: one a verb of the command line, with the same words. They wire stations and reports."""
