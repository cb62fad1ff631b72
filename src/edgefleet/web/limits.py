"""Bounds of the page."""

from typing import Final

FORM_BYTES: Final = 4096
FORM_S: Final = 10.0

LIVE_INTERVAL_S: Final = 1.0  # between two renderings of an open page
LIVE_ALIVE_S: Final = 5.0  # between keep-alive messages of a stream without news
LIVE_STREAM_S: Final = 600.0  # longest stream; the browser reconnects and its session is checked
LIVE_STREAMS: Final = 64  # further pages poll instead

DEVICES_PER_PAGE: Final = 50
AUDIT_PER_PAGE: Final = 50
AUDIT_ON_PAGE: Final = 12
AUDIT_SCANNED: Final = 500  # entries searched for those of one rollout
RECENT_ROLLOUTS: Final = 10

GZIP_BYTES: Final = 1024  # of an answer; a smaller one is not compressed

CHART_POINTS: Final = 240  # of a time series; a screen cannot show more
CHART_RELEASES: Final = 7  # with their own colour; older releases share one
