"""Bounds of the page."""

from typing import Final

SESSION_S: Final = 12 * 3600
FORM_BYTES: Final = 4096
FORM_S: Final = 10.0

LIVE_INTERVAL_S: Final = 1.0  # how often an open page is looked at again
LIVE_ALIVE_S: Final = 5.0  # how often a stream without news says that it is there
LIVE_STREAM_S: Final = 600.0  # then the browser asks anew, and its session is checked again
LIVE_STREAMS: Final = 64  # beyond, pages ask instead of listening

DEVICES_PER_PAGE: Final = 50
AUDIT_PER_PAGE: Final = 50
AUDIT_ON_PAGE: Final = 12
AUDIT_SCANNED: Final = 500  # entries looked through for those of one rollout
RECENT_ROLLOUTS: Final = 10

CHART_POINTS: Final = 240  # of a series over time; more cannot be told apart on a screen
CHART_RELEASES: Final = 7  # with a colour of their own; the rest is drawn as one
