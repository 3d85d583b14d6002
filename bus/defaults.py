"""Where the members of a fleet meet when nobody says otherwise. Imports nothing, so that `--help` may name it."""

DEFAULT_BROKER = "mqtt://127.0.0.1:1883"
DEFAULT_FLEET = "demo"
# Who an onlooker is, where a broker wants to know.
DEFAULT_WATCHER = "watcher-1"
# The environment variable in which a process finds its broker's URL when no flag says it.
BROKER_VARIABLE = "ROADSIDE_BROKER"
# The same for its folder of certificates.
TLS_VARIABLE = "ROADSIDE_TLS"
LOG_LEVEL_VARIABLE = "ROADSIDE_LOG_LEVEL"
# A folder in which each process keeps a history of what it does; unset: none is kept.
HISTORY_VARIABLE = "ROADSIDE_HISTORY"
# A folder in which each process keeps the messages that a replay of it needs; unset: none are kept.
MESSAGES_VARIABLE = "ROADSIDE_MESSAGES"
# Where a vehicle finds its video or camera, whose URL may hold a password, too.
VIDEO_VARIABLE = "ROADSIDE_VIDEO"
