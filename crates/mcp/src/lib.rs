//! Tools of MCP servers as tools of a conversation.
#![forbid(unsafe_code)]
