//! kill -9 and failures at any step: the next run recovers, or the former state is back.
