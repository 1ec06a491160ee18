//! Cold against warm: how much faster the cache makes a web app, measured from outside.
