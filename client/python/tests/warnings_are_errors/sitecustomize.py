"""Python runs this when it starts: a warning of pba_client ends the program."""

import warnings

from pba_client import PbaWarning

warnings.filterwarnings("error", category=PbaWarning)
