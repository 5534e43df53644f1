"""Tools that look at the engine from outside. They import the engine; the engine never imports them."""
