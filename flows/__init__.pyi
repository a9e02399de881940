# Score every row of a table.
from .evaluate import evaluate as evaluate

# Train a new run from the weights of a source.
from .finetune import finetune as finetune

# Read the table, judge its rows, decode what is new, and write the pack.
from .ingest import ingest as ingest

# Copy a table with a prediction, or a verdict, for every row.
from .predict import predict as predict

# Train a new run, or let one go on.
from .train import train as train
