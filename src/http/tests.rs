//! The query as a client sees it, over a view made by hand.
