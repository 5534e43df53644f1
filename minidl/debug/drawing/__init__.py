"""What `minidl.draw` is made of: reading the graph (picture), placing it on the page (layout), writing it (write)."""
