"""`raskrank compare`: models side by side on one set of data, in size, speed and quality. Needs the extra `[compare]`."""
