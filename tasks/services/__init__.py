"""What is peculiar to Prefect and to the servers that a flow needs."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
