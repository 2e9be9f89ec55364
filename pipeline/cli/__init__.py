"""The command line: one thin file per verb, the work is done in `pipeline.verbs`.

main       the program: its verbs, and what it says when something goes wrong
options    options that several verbs share
model      those that say what is known of a model
groups     one parameter of a verb for several options
progress   progress bars and finished steps, on standard error
table      results as short tables, on standard output
"""
