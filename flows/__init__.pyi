# Score every row of a table; the result is a run of its own, tagged with the one it came from.
from .evaluate import evaluate as evaluate

# Train a new run from the weights of a source; `resume` of the train flow, or a retry of this one,
# lets it go on.
from .finetune import finetune as finetune

# Read the table, judge its rows, decode what is new, and write the pack.
from .ingest import ingest as ingest

# Write a table again with a prediction, or a verdict, for every row; the run is tagged with its
# source.
from .predict import predict as predict

# Train a new run, or let one go on.
from .train import train as train
