"""Column names of `requests.parquet`, said once."""

REQUEST_ID = "request_id"
USER_ID = "user_id"
SEGMENT = "segment"
TIMESTAMP = "timestamp"
LABEL = "label"

RESERVED = (REQUEST_ID, USER_ID, SEGMENT, TIMESTAMP, LABEL)
ALL_SEGMENTS = "all"
