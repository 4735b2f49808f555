//! Text messages: how many segments a text takes.
