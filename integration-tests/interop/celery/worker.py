"""What `celery -A worker worker` runs."""

import json
import os

from tasks import build

app = build(os.environ["WARREN_AMQP_URI"], json.loads(os.environ["INTEROP_CELERY_SETTINGS"]))
