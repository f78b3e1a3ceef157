"""The stream processor with six windows in memory: nearly all come and go through the database."""

import stream_processor

stream_processor.MAX_WINDOWS = 6
stream_processor.main()
