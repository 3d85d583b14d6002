"""A run as one HTML file that a stranger can read: no network, no script, charts as inline SVG."""
