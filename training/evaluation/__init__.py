"""Scores of a model that the model service can serve, and their report: `python -m training evaluate --help`.

options            what to measure, on which pictures
subjects           the pictures, with what is known of them
embedding          the profile's towers, loaded and fed as the service does
captions · labels  what the towers make of captioned and of labelled pictures
scores · intervals numbers from vectors; how sure they are
examples           queries with their first hits
evaluation         all that was measured
run                `evaluate(options)`: one after the other
plots · report     report.json, PNG plots, report.html
"""
