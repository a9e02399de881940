# A line of the journal, or metrics of one, that the tracker does not take.
from .aside import Aside as Aside

# Note them, durably; what is noted twice is read once.
from .aside import set_aside as set_aside

# Sends what runs left, one after another; after one to which the tracker is silent, the others are
# not tried.
from .sender import Sender as Sender

# How far the shipping of one run came.
from .sender import Shipped as Shipped

# Tell MLflow that a run failed whose folder, and with it its journal and cursor, is not its own any
# more.
from .shipper import abandon as abandon

# Wait until MLflow has all of a run's journal, or does not answer any more; see `Shipper.settle`.
from .shipper import settle as settle

# Send a run's journal, which has its beginning, from now on; `settle` waits for it to be complete.
from .shipper import start_shipping as start_shipping

# End it without waiting.
from .shipper import stop_shipping as stop_shipping

# Send what runs left, the oldest first; after one to which the tracker is silent, the others wait
# too.
from .shipper import sync_home as sync_home

# Send what one run left.
from .shipper import sync_run as sync_run
